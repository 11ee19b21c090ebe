"""How time and memory of a kernel grow with samples, outputs, parameters and positions."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from studies.benchmarks import _floors, _harness, _networks
from studies.benchmarks._harness import RESULTS
from studies.benchmarks._networks import Network
from studies.benchmarks._rows import Cell, Row, Table
from studies.benchmarks._scaling_figure import draw
from studies.benchmarks._workers import WorkerProcess
from studies.benchmarks.engine import LIMIT, calls_for

QUESTION = (
    'Exponents of time and peak memory of the full kernel (`method="auto"`) in the number of '
    "samples N, outputs C, parameters P (by the width) and positions T, everything else fixed."
)
COLUMNS = {"ours": "exponent", "peer": "cost model", "ratio": "ratio"}
NOTES = (
    "Exponents are least-squares slopes in doubly logarithmic axes, with 95 % t-intervals for "
    "their departure from a straight line. The cost model is fitted to the same points: for time "
    "the operations that the kernel cannot do without, for memory the bytes of the kernel and of "
    "every layer's inputs and output gradients. Memory is what the compiled program sets "
    "aside for temporaries and result; tiles bound it.",
)
FIGURE = RESULTS / "scaling.svg"
CAPTION = (
    "Time and memory of the full kernel over samples, outputs, parameters and positions; lines "
    "are fits, their exponents in the legends."
)

MLP = {"n_in": 64, "width": 256, "classes": 4, "n": 64}
TRANSFORMER = {"width": 64, "depth": 2, "length": 32, "vocabulary": 64, "classes": 4, "n": 16}
BASES: dict[str, tuple[Callable[..., Network], dict[str, int]]] = {
    "MLP": (_networks.mlp, MLP),
    "transformer": (_networks.transformer, TRANSFORMER),
}


@dataclass(frozen=True)
class Axis:
    """One size that is varied and all others that are not.

    Attributes
    ----------
    name
        ``"N"``, ``"C"``, ``"P"`` or ``"T"``.
    network
        ``"MLP"`` or ``"transformer"``.
    argument
        What the network calls that size.
    values
        What it is set to.
    """

    name: str
    network: str
    argument: str
    values: tuple[int, ...]

    def make(self, value: int) -> Network:
        """The network of one point."""
        build, base = BASES[self.network]
        return build(**base | {self.argument: value})


AXES = (
    Axis("N", "MLP", "n", (32, 64, 128, 256, 512)),
    Axis("C", "MLP", "classes", (1, 2, 4, 8, 16)),
    Axis("P", "MLP", "width", (64, 128, 256, 512, 1024)),
    Axis("N", "transformer", "n", (4, 8, 16, 32, 64)),
    Axis("C", "transformer", "classes", (1, 2, 4, 8, 16)),
    Axis("P", "transformer", "width", (32, 64, 128, 256)),
    Axis("T", "transformer", "length", (8, 16, 32, 64, 128)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--repeats", type=int, default=5, help="runs of every point (default 5)")
    parser.add_argument("--method", default="auto", help="method of ours (default auto)")


def check(options: argparse.Namespace) -> str:
    """What is wrong with the options, empty if nothing is."""
    return "" if options.repeats > 0 else f"--repeats {options.repeats}: expected at least 1."


def run(options: argparse.Namespace) -> Iterable[tuple[str | None, Table]]:
    """Measure axis after axis, each point in a process of its own; fit and draw."""
    rows: list[Row] = []
    series: list[dict[str, Any]] = []
    for axis in AXES:
        series.append(measured(axis, options.method, options.repeats))
        rows += fitted(series[-1])
        _harness.show(rows[-2:])
    figure = {"file": FIGURE.name, "caption": CAPTION}
    table = Table(rows, COLUMNS, QUESTION, NOTES, series=series, figure=figure)
    if options.method == "auto":
        draw(series, FIGURE)
    yield "scaling" if options.method == "auto" else None, table


def measured(axis: Axis, method: str, repeats: int) -> dict[str, Any]:
    """Points of one axis, timed in turn, as the JSON keeps them.

    Operations and factors are those of the cost model.
    """
    networks = [axis.make(value) for value in axis.values]
    with ExitStack() as stack:
        workers, calls, reserved = [], [], []
        for network in networks:
            worker = WorkerProcess(Path(sys.executable), "ntkstats", LIMIT)
            workers.append(stack.enter_context(worker))
            worker.load(network)
            facts = worker.compile(method)
            calls.append(calls_for(facts["first"]))
            reserved.append(facts["reserved"])
        # In turn, so that a busy spell of the machine bends no line.
        turns = [
            [worker.seconds(n) for worker, n in zip(workers, calls, strict=True)]
            for _ in range(repeats)
        ]
    parameters = [sum(leaf.size for leaf in network.params.values()) for network in networks]
    return {
        "axis": axis.name,
        "network": axis.network,
        "size": parameters if axis.name == "P" else list(axis.values),
        "seconds": [statistics.median(times) for times in zip(*turns, strict=True)],
        "bytes": reserved,
        "operations": [_floors.kernel(network) for network in networks],
        "factors": [_floors.factor_bytes(network) for network in networks],
    }


def fitted(series: dict[str, Any]) -> list[Row]:
    """The exponents of one axis: of time, and of memory."""
    rows = []
    for what, ours, model in (("time", "seconds", "operations"), ("memory", "bytes", "factors")):
        exponent, spread = slope(series["size"], series[ours])
        expected, _ = slope(series["size"], series[model])
        interval = Cell(None, note=f"{exponent - spread:.2f} to {exponent + spread:.2f}")
        case = f"{series['network']}: {what} against {series['axis']}"
        more = {"95 % interval": interval}
        rows.append(Row(case, exponent, expected, exponent / expected, unit="", more=more))
    return rows


def slope(size: Sequence[float], value: Sequence[float]) -> tuple[float, float]:
    """Exponent of a power law, and half the width of its 95 % interval."""
    fit = stats.linregress(np.log(size), np.log(value))
    half = float(stats.t.ppf(0.975, len(size) - 2) * fit.stderr)
    return float(fit.slope), half
