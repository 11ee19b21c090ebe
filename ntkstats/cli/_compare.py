"""``compare RUN...``: what differs between runs, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from ntkstats.cli._runs import as_data, labels, read
from ntkstats.cli._text import numbers, plain, table, unit_of
from ntkstats.errors import StoreError
from ntkstats.recording import RunSummary, open_runs, summarise

_OWN = frozenset(
    # What every run has of its own, and what is shown as a value.
    {"run_id", "created", "attempts", "failures", "finished", "non_finite_steps", "key"}
)
_WIDEST = 60


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("compare", help="differing settings and last values of runs")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="at least two runs")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what differs."""
    paths: list[str] = arguments.runs
    if len(paths) < 2:
        msg = f"only {paths[0]!r} was given; compare takes two or more runs"
        raise StoreError(msg)
    names = labels(paths)
    found = [read(summarise, path) for path in paths]
    with as_data(", ".join(paths)):
        open_runs(paths, labels=names)  # refuses numbers that do not mean the same
        print(describe(names, found))
    return 0


def describe(names: Sequence[str], found: Sequence[RunSummary]) -> str:
    """Two tables: settings that differ, and the last value of every scalar field."""
    settings = differing([dict(_flat(_settings(one))) for one in found])
    blocks = []
    if settings:
        head = ("  setting", *names)
        blocks.append("Settings that differ\n" + table([head, *settings]))
    else:
        blocks.append("The settings are the same.")
    same, rows = [], []
    for name in dict.fromkeys(name for one in found for name in one.last):
        cells = [_value(one, name) for one in found]
        unit = next((unit_of(one.fields[name]) for one in found if name in one.fields), "")
        if len(set(cells)) == 1:
            same.append(name)
        else:
            rows.append((f"  {name}" + (f" ({unit})" if unit else ""), *cells))
    if rows:
        right = range(1, len(names) + 1)
        blocks.append(
            "Last values that differ\n" + table([("  field", *names), *rows], right=right)
        )
    if same:
        blocks.append("The same in all: " + ", ".join(same))
    return "\n\n".join(blocks)


def _value(one: RunSummary, name: str) -> str:
    if name not in one.last:
        return "-"
    step, value = one.last[name]
    return f"{numbers(value)} at {step}"


def _settings(one: RunSummary) -> dict[str, Any]:
    return {
        **{key: value for key, value in one.attrs.items() if key not in _OWN},
        "records": sum(steps.size for steps in one.steps.values()),
        "attempts": len(one.attrs["attempts"]),
        "failures": len(one.attrs["failures"]),
    }


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """``(config.lr, 0.1)`` for every entry of nested settings."""
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from _flat(entry, f"{where}.{key}" if where else str(key))
    else:
        yield where, value


def differing(settings: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """``(setting, one cell a run)`` for those that are not the same everywhere."""
    rows = []
    for key in dict.fromkeys(key for one in settings for key in one):
        cells = [plain(one[key]) if key in one else "-" for one in settings]
        if len(set(cells)) > 1:
            rows.append((f"  {key}", *map(_short, cells)))
    return rows


def _short(cell: str) -> str:
    return cell if len(cell) <= _WIDEST else cell[: _WIDEST - 3] + "..."
