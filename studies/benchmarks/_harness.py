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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks"
PACKAGES = ("ntkstats", "jax", "jaxlib", "numpy")


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table.

    Attributes
    ----------
    case
        What was run.
    ours, peer
        Medians, in ``unit``.
    ratio
        Median of the ratios of neighbouring runs, ours / peer.
    bar
        What the ratio may be at most.
    unit
        Unit of `ours` and `peer`; absolute values mean little on a shared machine.
    """

    case: str
    ours: float
    peer: float
    ratio: float
    bar: float
    unit: str = "s"

    @property
    def holds(self) -> bool:
        """Whether the bar holds."""
        return self.ratio <= self.bar


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
) -> Row:
    """Run both in turn after one warm-up of each, and compare neighbours."""
    seconds(ours)
    seconds(peer)
    pairs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    return Row(
        case,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
        bar,
    )


def machine() -> dict[str, Any]:
    """The machine in words; nothing that identifies it."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
    }


def write(name: str, question: str, columns: tuple[str, str], rows: list[Row]) -> Path:
    """Write ``docs/benchmarks/NAME.json``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {
        "name": name,
        "question": question,
        "command": f"python -m studies.benchmarks {name}",
        "columns": {"ours": columns[0], "peer": columns[1]},
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def show(rows: list[Row]) -> None:
    """Print the rows, one a line."""
    for row in rows:
        verdict = "ok" if row.holds else "MISSED"
        print(
            f"{row.case:<44} {row.ours:.4g} / {row.peer:.4g} {row.unit}  ratio {row.ratio:.2f}  "
            f"bar {row.bar:.2f}  {verdict}"
        )
