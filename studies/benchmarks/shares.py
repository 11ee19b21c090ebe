"""Where the time of a kernel goes, against the operations it cannot do without."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from studies.benchmarks import _floors, _networks
from studies.benchmarks._cases import CASES, Case
from studies.benchmarks._rows import Cell, Row, Table
from studies.benchmarks._workers import WorkerProcess
from studies.benchmarks.engine import LIMIT, calls_for, runs_for

QUESTION = (
    "Where the time goes: carrying the gradients of all outputs back to the first layer, the "
    "whole kernel, its eigenvalues; each against its operations at the measured rate of a "
    "2048 x 2048 x 2048 matrix product in float32."
)
COLUMNS = {"ours": "time", "peer": "floor", "ratio": "share of the rate"}
NOTES = (
    "Floors count products with parameters and attention, nothing else: forward and backward "
    "pass; for the kernel also the cheaper order of contraction, one triangle; 4/3 n^3 for the "
    "eigenvalues. All parts of a case are measured in turn in one run.",
)
RATE_BAR_FLAT = 0.4

PARTS = ("backward", "kernel", "eigenvalues")
SHARED_CASES = {
    **CASES,
    "long": Case("MLP 784-512x3-1, N=2048", partial(_networks.mlp, 784, 512, 1, 2048)),
}
"""Those of the engine benchmark, and many samples of a network without positions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="some of the cases only")
    parser.add_argument("--repeats", type=int, default=7, help="runs of every part (default 7)")
    parser.add_argument("--method", default="auto", help="method of ours (default auto)")


def check(options: argparse.Namespace) -> str:
    """What is wrong with the options, empty if nothing is."""
    unknown = [case for case in options.cases or [] if case not in SHARED_CASES]
    if unknown:
        return f"--cases {' '.join(unknown)}: expected some of {', '.join(SHARED_CASES)}."
    if options.repeats < 1:
        return f"--repeats {options.repeats}: expected at least 1."
    return ""


def run(options: argparse.Namespace) -> Iterable[tuple[str | None, Table]]:
    """Measure case after case; each comes with the name of the file that keeps it, if any."""
    for name, case in SHARED_CASES.items():
        if options.cases and name not in options.cases:
            continue
        bar = RATE_BAR_FLAT if name == "long" else None
        rows = measured(case, options.repeats, options.method, bar)
        yield "shares" if options.method == "auto" else None, Table(rows, COLUMNS, QUESTION, NOTES)


def measured(case: Case, repeats: int, method: str, bar: float | None) -> list[Row]:
    """A row for every part of a case; the bar is for the kernel's share of the rate."""
    network = case.make()
    flop = {
        "backward": _floors.forward(network) + _floors.backward(network),
        "kernel": _floors.kernel(network),
        "eigenvalues": _floors.eigenvalues(len(network.x) * network.n_outputs),
    }
    with ExitStack() as stack:
        workers, calls, once = {}, {}, 0.0
        for part in (*PARTS, "gemm"):
            ours = part == "kernel"
            package = "ntkstats" if ours else "parts"
            worker = stack.enter_context(WorkerProcess(Path(sys.executable), package, LIMIT))
            worker.load(network)
            facts = worker.compile(method if ours else part)
            flop.setdefault(part, facts.get("flop", 0))
            workers[part], calls[part] = worker, calls_for(facts["first"])
            once += calls[part] * facts["first"]
        turns = [
            {part: worker.seconds(calls[part]) for part, worker in workers.items()}
            for _ in range(runs_for(once, repeats))
        ]
    # The rate of each turn: the machine may be slower in one than in another.
    rates = [flop["gemm"] / turn["gemm"] for turn in turns]
    rows = []
    for part in PARTS:
        seconds = statistics.median(turn[part] for turn in turns)
        floors = [flop[part] / rate for rate in rates]
        shares = [floor / turn[part] for floor, turn in zip(floors, turns, strict=True)]
        of_kernel = statistics.median(turn[part] / turn["kernel"] for turn in turns)
        more = {"of the kernel's time": Cell(of_kernel), "operations": Cell(flop[part] / 1e9, "G")}
        rows.append(
            Row(
                f"{case.title}: {part}",
                seconds,
                statistics.median(floors),
                statistics.median(shares),
                bar if part == "kernel" else None,
                at_least=True,
                more=more,
            )
        )
    return rows
