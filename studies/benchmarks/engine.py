"""Our kernels against those of neural-tangents, each in an environment of its own."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from studies.benchmarks import _floors, _networks
from studies.benchmarks._cases import (
    CASES,
    DIFFERENCE_BAR,
    GPU_CASES,
    MEMORY_BAR,
    RATE_BAR,
    Case,
)
from studies.benchmarks._networks import Network
from studies.benchmarks._rows import Cell, Row, Table
from studies.benchmarks._workers import ROOT, WorkerError, WorkerProcess

QUESTION = (
    'The full (N C) x (N C) kernel in float32 by `method="auto"` against the fastest '
    "implementation of neural-tangents 0.6.5 in its own environment (the last JAX on which all "
    "of them work)."
)
QUESTION_ALONE = (
    'The full (N C) x (N C) kernel in float32 by `method="auto"` against its operations (one '
    "forward pass, one backward pass an output, the cheaper order of contraction) at the rate of "
    "a large float32 matrix product."
)
COLUMNS = {"ours": "ours", "peer": "neural-tangents, best", "ratio": "times faster"}
COLUMNS_ALONE = {"ours": "ours", "peer": "floor", "ratio": "share of the rate"}
NOTES = (
    "*times faster* is the median over pairs of neighbouring runs, compilation excluded, result "
    "ready. Implementations: 1 Jacobian contraction (what a user gets by default), 2 NTK-vector "
    "products, 3 structured derivatives, all with `vmap_axes=0`, jitted. An implementation that "
    "has no kernel after the time limit, imports and compilation included, or needs more than "
    "8 GiB, is ended. `make peers` makes the peer's environment.",
    "*memory* is the most resident memory a process ever held, above what it held once "
    "everything was imported (`VmHWM` - `VmRSS`): parameters, inputs, compilation and runs. "
    "*memory of a run* leaves compilation out: the mark is put back before one more run, with "
    "what compilation still holds below it. *Buffers of the program* are what the compiled program "
    "sets aside for temporaries and result, nothing else.",
    "*difference* is the relative Frobenius norm between our kernel and that of the peer "
    "implementation furthest from it.",
)
IMPLEMENTATIONS = (1, 2, 3)
DEFAULT = 1
PEER_PYTHON = ROOT / ".venv-peers" / "neural-tangents" / "bin" / "python"
MIB = 2**20

LIMIT = 280.0
_SAMPLE_SECONDS = 0.2  # shorter kernels are run several times for one measurement
_SLOW_SECONDS = 40.0  # about what all runs of one slow implementation may take


@dataclass
class Peer:
    """One implementation of the peer, as far as it got."""

    implementation: int
    failure: str = ""
    version: str = ""
    calls: int = 1
    runs: int = 0
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    difference: float = math.nan

    @property
    def median(self) -> float:
        """Median of its times, infinite if it has none."""
        return statistics.median(self.seconds) if self.seconds else math.inf


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="some of the cases only")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs (default 7)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds to a first kernel")
    parser.add_argument("--method", default="auto", help="method of ours (default auto)")
    parser.add_argument("--no-peers", action="store_true", help="ours against its floor")
    parser.add_argument("--gpu", action="store_true", help="the cases for a GPU; needs --no-peers")


def check(options: argparse.Namespace) -> str:
    """What is wrong with the options, empty if nothing is."""
    known = GPU_CASES if options.gpu else CASES
    unknown = [case for case in options.cases or [] if case not in known]
    if unknown:
        return f"--cases {' '.join(unknown)}: expected some of {', '.join(known)}."
    if options.repeats < 1:
        return f"--repeats {options.repeats}: expected at least 1."
    if options.gpu and not options.no_peers:
        return "--gpu: the peer's environment is for CPU only. Add --no-peers."
    if not options.no_peers and not PEER_PYTHON.exists():
        return "the peer's environment is missing. Make it with `make peers`, or add --no-peers."
    return ""


def run(options: argparse.Namespace) -> Iterable[tuple[str | None, Table]]:
    """Measure case after case; each comes with the name of the file that keeps it, if any."""
    for name, case in (GPU_CASES if options.gpu else CASES).items():
        if options.cases and name not in options.cases:
            continue
        if options.no_peers:
            row = alone(case, options)
            flags = "--gpu --no-peers" if options.gpu else "--no-peers"
            table = Table([row], COLUMNS_ALONE, QUESTION_ALONE, options=flags)
            # On CPU `shares` keeps the same numbers, and more.
            kept = "engine_gpu" if options.gpu else None
        else:
            row, version = compared(case, options)
            table = Table([row], COLUMNS, QUESTION, NOTES, {"neural-tangents": version})
            kept = "engine"
        yield kept if options.method == "auto" else None, table


def compared(case: Case, options: argparse.Namespace) -> tuple[Row, str]:
    """One row against the peer, and the peer's version."""
    network = case.make()
    with ExitStack() as stack:
        ours, started = _started(stack, Path(sys.executable), "ntkstats", options.method, network)
        first = ours.kernel()
        peers = {number: Peer(number) for number in IMPLEMENTATIONS}
        workers: dict[int, WorkerProcess] = {}
        for number, peer in peers.items():
            try:
                worker, facts = _started(
                    stack, PEER_PYTHON, "neural-tangents", number, network, options.limit
                )
                kernel = worker.kernel()
            except WorkerError as error:
                peer.failure = str(error)
                print(f"  implementation {number}: {error}", flush=True)
                continue
            peer.version = facts["version"]
            peer.difference = float(np.linalg.norm(first - kernel) / np.linalg.norm(kernel))
            peer.calls = calls_for(facts["first"])
            peer.runs = runs_for(facts["first"] * peer.calls, options.repeats)
            workers[number] = worker
        calls = calls_for(started["first"])
        mine = _alternate(ours, calls, {workers[n]: peers[n] for n in workers}, options.repeats)
        peaks = ours.peaks()
        for number, worker in workers.items():
            peers[number].peaks = worker.peaks()
    versions = [peer.version for peer in peers.values() if peer.version]
    return _row(case, mine, peaks, peers), versions[0] if versions else "0.6.5"


def alone(case: Case, options: argparse.Namespace) -> Row:
    """One row against the operations that the kernel cannot do without."""
    network = case.make()
    with ExitStack() as stack:
        ours, facts = _started(
            stack, Path(sys.executable), "ntkstats", options.method, network, options.limit
        )
        calls = calls_for(facts["first"])
        times = [ours.seconds(calls) for _ in range(options.repeats)]
        peaks = ours.peaks()
    rate = gemm_rate("gemm")
    seconds, floor = statistics.median(times), _floors.kernel(network) / rate
    more = {
        "time": Cell(seconds, "s", case.seconds),
        "GEMM rate": Cell(rate / 1e9, "GFLOP/s"),
        "GEMM rate, default precision": Cell(gemm_rate("gemm-default") / 1e9, "GFLOP/s"),
        "memory": Cell(peaks["whole"] / MIB, "MiB"),
    }
    bar = RATE_BAR if options.gpu else None
    return Row(case.title, seconds, floor, floor / seconds, bar, at_least=True, more=more)


def gemm_rate(method: str, repeats: int = 5) -> float:
    """FLOP/s of a large matrix product, in a process of its own."""
    network = _networks.mlp(1, 1, 1, 1)  # a worker wants one
    with ExitStack() as stack:
        worker, facts = _started(stack, Path(sys.executable), "parts", method, network)
        return float(facts["flop"] / min(worker.seconds() for _ in range(repeats)))


def _started(
    stack: ExitStack,
    python: Path,
    package: str,
    method: Any,
    network: Network,
    limit: float = LIMIT,
) -> tuple[WorkerProcess, dict[str, Any]]:
    """A worker that has run its kernel once, and what it said then."""
    worker = stack.enter_context(WorkerProcess(python, package, limit))
    worker.load(network)
    return worker, worker.compile(method)


def calls_for(first: float) -> int:
    """How many calls in a row make one measurement."""
    return min(max(math.ceil(_SAMPLE_SECONDS / first), 1), 200)


def runs_for(measurement: float, repeats: int) -> int:
    """How many measurements to make of something slow."""
    return min(repeats, max(int(_SLOW_SECONDS / measurement), 2))


def _alternate(
    ours: WorkerProcess, calls: int, peers: dict[WorkerProcess, Peer], repeats: int
) -> list[float]:
    """Time each peer next to ours, in turn; answers all our times."""
    mine = []
    for repeat in range(repeats):
        for worker, peer in peers.items():
            if repeat < peer.runs:
                a, b = ours.seconds(calls), worker.seconds(peer.calls)
                mine.append(a)
                peer.seconds.append(b)
                peer.ratios.append(b / a)
    return mine or [ours.seconds(calls) for _ in range(repeats)]


def _row(case: Case, mine: list[float], peaks: dict[str, int], peers: dict[int, Peer]) -> Row:
    ended = [peer for peer in peers.values() if peer.seconds]
    best = min(ended, key=lambda peer: peer.median, default=None)
    default = peers[DEFAULT]
    more = {
        f"implementation {peer.implementation}": Cell(peer.median, "s")
        if peer.seconds
        else Cell(None, note=peer.failure)
        for peer in peers.values()
    }
    over_default = statistics.median(default.ratios) if default.ratios else None
    more["times faster than 1"] = Cell(over_default, bar=case.speedup_default, at_least=True)
    kinds = (
        ("whole", "memory", MEMORY_BAR),
        ("run", "memory of a run", None),
        ("program", "buffers of the program", None),
    )
    for kind, title, bar in kinds:
        more[title] = Cell(peaks[kind] / MIB, "MiB")
        theirs = best.peaks[kind] if best else 0  # an older JAX does not say all of them
        ratio = peaks[kind] / theirs if theirs else None
        more[f"{title}, ours / best"] = Cell(ratio, bar=bar)
    worst = max((peer.difference for peer in ended), default=None)
    more["difference"] = Cell(worst, bar=DIFFERENCE_BAR)
    return Row(
        case.title,
        statistics.median(mine),
        best.median if best else None,
        statistics.median(best.ratios) if best else None,
        case.speedup if best else None,
        at_least=True,
        more=more,
    )
