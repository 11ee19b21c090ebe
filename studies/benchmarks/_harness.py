"""Time two things in turn, and write what came out.

These machines are shared: only ratios from one alternating run mean anything, and of those the
median.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from scipy.stats import binom

from studies.benchmarks._rows import Cell, Row, Table

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks"
PACKAGES = ("ntkstats", "jax", "jaxlib", "numpy")


def seconds(fn: Callable[[], Any]) -> float:
    """Wall time of one call, results ready."""
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


def alternate(
    case: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    bar: float,
    repeats: int = 15,
    calls: int = 1,
) -> Row:
    """Run both in turn after one warm-up of each, and compare neighbours.

    Each does its work ``calls`` times in a row; the times are those of one. Who goes first
    changes from pair to pair, so that coming second is nobody's advantage.
    """
    both = (ours, peer)
    for fn in both:
        seconds(fn)
    pairs = []
    for turn in range(repeats):
        times = {fn: seconds(fn) / calls for fn in (both if turn % 2 else both[::-1])}
        pairs.append((times[ours], times[peer]))
    return compared(case, pairs, bar=bar)


def compared(case: str, pairs: Sequence[tuple[float, float]], *, bar: float) -> Row:
    """Medians of neighbouring times (ours, peer) and of their ratios, with its interval."""
    ratios = [ours / peer for ours, peer in pairs]
    low, high = median_interval(ratios)
    return Row(
        case,
        statistics.median(ours for ours, _ in pairs),
        statistics.median(peer for _, peer in pairs),
        statistics.median(ratios),
        bar,
        more={"95 % interval": Cell(None, note=f"{low:.2f} to {high:.2f}")},
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a median, whatever the distribution: order statistics (binomial)."""
    ordered, n = sorted(values), len(values)
    rank = int(binom.ppf(0.025, n, 0.5))
    return ordered[max(rank - 1, 0)], ordered[min(n - rank, n - 1)]


def machine() -> dict[str, Any]:
    """The machine in words; nothing that identifies it."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
    }


def write(name: str, table: Table) -> Path:
    """Write ``docs/benchmarks/NAME.json``.

    Rows of other cases that the file holds stay, if they are from this machine and these
    versions and the table is not `whole`: the cases of a long benchmark may be measured one after
    another.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    benchmark = name.partition("_")[0]
    result = {
        "name": name,
        "question": table.question,
        "command": f"python -m studies.benchmarks {benchmark} {table.options}".strip(),
        "columns": dict(table.columns),
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES} | dict(table.versions),
        "rows": [asdict(row) for row in table.rows],
    }
    optional = {"notes": table.notes, "series": table.series, "figure": dict(table.figure)}
    result.update((key, value) for key, value in optional.items() if value)
    if path.exists() and not table.whole:
        result["rows"] = merged(json.loads(path.read_text()), result)
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def merged(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a result, and those of an older one that it neither replaces nor contradicts."""
    same = all(old.get(key) == new[key] for key in ("machine", "versions", "command", "columns"))
    if not same:
        return list(new["rows"])
    fresh = {row["case"]: row for row in new["rows"]}
    kept = [fresh.pop(row["case"], row) for row in old["rows"]]
    return [*kept, *fresh.values()]


def show(rows: list[Row]) -> None:
    """Print the rows, one a line."""
    for row in rows:
        verdict = "ok" if row.holds else "MISSED"
        facts = {"ratio": row.ratio, "bar": row.bar}
        facts |= {title: cell.value for title, cell in row.more.items()}
        told = "  ".join(
            f"{name} {value:.3g}" for name, value in facts.items() if value is not None
        )
        peer = "-" if row.peer is None else f"{row.peer:.4g}"
        print(f"{row.case:<44} {row.ours:.4g} / {peer} {row.unit}  {told}  {verdict}", flush=True)
