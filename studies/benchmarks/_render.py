"""The documentation's table of benchmarks, from the JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies.benchmarks._harness import RESULTS
from studies.benchmarks._rows import holds

PAGE = RESULTS.parent / "benchmarks.md"
HEADER = """# Benchmarks

Rendered by `python -m studies.benchmarks render` from the files in `docs/benchmarks/`, which the
commands named below write. The machines are shared, so ratios (medians over alternating runs) are
what counts; the absolute values only say what was compared.
"""

NOTHING = "–"  # noqa: RUF001 - a dash for an empty cell


def render(folder: Path = RESULTS) -> str:
    """The page as Markdown."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return "\n".join([HEADER, *(section(result) for result in results)])


def write_page() -> Path:
    """Write ``docs/benchmarks.md``."""
    PAGE.write_text(render())
    return PAGE


def section(result: dict[str, Any]) -> str:
    """One benchmark: question, table, notes, figure, where and how it was run."""
    machine, versions, rows = result["machine"], result["versions"], result["rows"]
    ours, peer = result["columns"]["ours"], result["columns"]["peer"]
    bars = any(row.get("bar") is not None for row in rows)
    further = list(dict.fromkeys(title for row in rows for title in row.get("more", {})))
    titles = ["case", ours, peer, result["columns"].get("ratio", "ratio")]
    titles += ["bar"] * bars + further
    lines = [f"## {result['name']}", "", f"{result['question']}", "", _line(titles)]
    lines.append(_line(["---"] * len(titles)))
    for row in rows:
        cells = [row["case"], _number(row["ours"], row["unit"])]
        cells += [_number(row["peer"], row["unit"]), _ratio(row["ratio"])]
        cells += [_bar(row)] * bars
        cells += [_cell(row.get("more", {}).get(title)) for title in further]
        lines.append(_line(cells))
    for note in result.get("notes", []):
        lines += ["", note]
    if figure := result.get("figure"):
        lines += ["", f"![{figure['caption']}](benchmarks/{figure['file']})"]
        lines += ["", f"*{figure['caption']}*"]
    where = f"{machine['cores']} cores, {machine['architecture']}, {machine['device']}"
    what = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines += ["", f"`{result['command']}` on {where}; {what}.", ""]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{value:.3g} {unit}".rstrip()


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _bar(row: dict[str, Any]) -> str:
    if row.get("bar") is None:
        return NOTHING
    at_least = row.get("at_least", False)
    held = "" if holds(row["ratio"], row["bar"], at_least=at_least) else " (missed)"
    return f"{'>=' if at_least else '<='} {row['bar']:.2f}{held}"


def _cell(cell: dict[str, Any] | None) -> str:
    """A number of a further column, with its bar."""
    if cell is None:
        return NOTHING
    text = cell["note"] if cell["value"] is None else _number(cell["value"], cell["unit"])
    if cell["bar"] is None:
        return text or NOTHING
    held = holds(cell["value"], cell["bar"], at_least=cell["at_least"])
    sign = ">=" if cell["at_least"] else "<="
    return f"{text or NOTHING} ({sign} {cell['bar']:.3g}{'' if held else ', missed'})"
