"""The documentation's table of benchmarks, from the JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies.benchmarks._harness import RESULTS

PAGE = RESULTS.parent / "benchmarks.md"
HEADER = """# Benchmarks

Rendered by `python -m studies.benchmarks render` from the files in `docs/benchmarks/`, which the
commands named below write. The machines are shared, so ratios (medians over alternating runs) are
what counts; the absolute values only say what was compared.
"""


def render(folder: Path = RESULTS) -> str:
    """The page as Markdown."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return "\n".join([HEADER, *(_section(result) for result in results)])


def write_page() -> Path:
    """Write ``docs/benchmarks.md``."""
    PAGE.write_text(render())
    return PAGE


def _section(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    ours, peer = result["columns"]["ours"], result["columns"]["peer"]
    lines = [
        f"## {result['name']}",
        "",
        f"{result['question']}",
        "",
        f"| case | {ours} | {peer} | ratio | bar |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        held = "" if row["ratio"] <= row["bar"] else " (missed)"
        lines.append(
            f"| {row['case']} | {row['ours']:.3g} {row['unit']} | {row['peer']:.3g} {row['unit']} "
            f"| {row['ratio']:.2f} | <= {row['bar']:.2f}{held} |"
        )
    where = f"{machine['cores']} cores, {machine['architecture']}, {machine['device']}"
    what = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines += ["", f"`{result['command']}` on {where}; {what}.", ""]
    return "\n".join(lines)
