"""Minima and transition states of XOR networks against GMIN, OPTIM, PATHSAMPLE and topsearch."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ntkstats import landscape
from ntkstats._compat import x64
from ntkstats.landscape._points import tell_apart
from ntkstats.landscape._pool import CONVERGED
from ntkstats.landscape._search import followed
from ntkstats.typing import Array
from studies.benchmarks import _gmin
from studies.benchmarks._rows import Cell, Row, Table
from studies.benchmarks._workers import ROOT

QUESTION = (
    "XOR network with 2 hidden units, weight decay 1e-2 (12 parameters, 5 minima and 16 transition "
    "states up to symmetry), gradients below 1e-9: quenches a CPU second, and CPU seconds to as "
    "many orbits of transition states as the peer reaches."
)
COLUMNS = {"ours": "ntkstats", "peer": "peer", "ratio": "times faster"}
NOTES = (
    "CPU seconds of the process and its children, warm (compiled before), medians over seeds; "
    "*times faster* is the median of the ratios seed by seed. Quenches start uniformly within "
    "+-5, ours from independent points, the peers' from basin hopping with steps of that size; "
    "those of GMIN's default size never leave the lowest orbit. *stored / true* counts minima in "
    "the database over minima up to symmetry.",
    "*network*: ours is minima from 256 quenches, rounds of 64 saddle searches until as many "
    "orbits are found as the peer reaches in its whole run, then all their pathways of gradient "
    "flow. The peer's clock stops when it last found a new orbit. *network_gmin* is the way of its "
    "authors (minima of GMIN to PATHSAMPLE, which perturbs a minimum and starts OPTIM, 80 cycles; "
    "it waits two seconds each, which no CPU second counts). *network_optim* leaves PATHSAMPLE "
    "out and starts OPTIM 240 times from random points: not a way that is documented, but the "
    "fastest we found with these programs. *network_topsearch*: 300 steps of basin hopping, bands "
    "to the 8 nearest minima of each; transition states count that its graph (one a pair of "
    "minima) has no place for. Orbits are told apart by our symmetry for all.",
    "*complete* is our own time to all 5 minima and 16 transition states with their pathways, "
    "database included; *wrong connections* are those that differ from pathways followed at the "
    "default precision (steps here may be off the gradient by 10 %, there by 2 %).",
    "`make peers` makes the peers' environments; the programs of pylfl are GPL and used as they "
    "come.",
)
VERSIONS = {"pylfl": "0.3.5", "topsearch": "0.0.3"}
TOPSEARCH = ROOT / ".venv-peers" / "topsearch" / "bin" / "python"
MINIMA, SADDLES = 5, 16
GMIN_BAR, TOPSEARCH_BAR, NETWORK_BAR = 1.0, 15.0, 20.0

_QUENCHES, _GMIN_STEPS, _TOPSEARCH_STEPS = 8192, 3000, 300
_STARTS, _ROUND, _LANES, _ROUNDS = 256, 64, 64, 100
_CYCLES, _SEARCHES, _NEIGHBOURS = 80, 240, 8
_FOLLOW = landscape.Follow(max_iterations=40)  # what takes longer is cheaper from another start
_FLOW = landscape.Flow(error=0.1, max_step=0.4)  # half as many points on the way as by default


class Reached(NamedTuple):
    """Orbits of transition states that a peer found, and CPU seconds up to the last new one."""

    orbits: int
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which rows to measure, and how often."""
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="some rows")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each row (default 5)")


def check(options: argparse.Namespace) -> str:
    """What is wrong with the options, empty if nothing is."""
    if options.seeds < 1:
        return f"--seeds {options.seeds}: expected at least 1."
    if not _gmin.PEER.exists() or not TOPSEARCH.exists():
        return "the peers' environments are missing. Make them with `make peers`."
    return ""


def run(options: argparse.Namespace) -> Iterator[tuple[str | None, Table]]:
    """Measure the rows; the file keeps the others."""
    for name in options.rows:
        row = ROWS[name](options.seeds)
        yield "landscape", Table([row], COLUMNS, QUESTION, NOTES, VERSIONS)


def cpu_seconds() -> float:
    """Of this process and its children so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@lru_cache(maxsize=1)
def uniform_problem() -> landscape.Problem:
    """The problem with the starts of the quench rows."""

    def sample(key: Array, n: int) -> Array:
        return jax.random.uniform(key, (n, _gmin.DIM), minval=-5, maxval=5)

    return replace(landscape.xor_network(_gmin.HIDDEN, _gmin.L2), sample=sample)


def quenched(seed: int) -> tuple[float, landscape.Landscape]:
    """CPU seconds of the quenches of a seed, and what they found."""
    start = cpu_seconds()
    scape = landscape.Landscape(uniform_problem())
    scape.find_minima(key=jax.random.key(seed), starts=_QUENCHES)
    return cpu_seconds() - start, scape


def mapped(
    seed: int, orbits: int, flow: landscape.Flow = _FLOW
) -> tuple[float, landscape.Landscape]:
    """CPU seconds to a connected network of so many orbits of transition states, and it."""
    start = cpu_seconds()
    keys = jax.random.split(jax.random.key(seed), _ROUNDS + 1)
    scape = landscape.Landscape(landscape.xor_network(_gmin.HIDDEN, _gmin.L2))
    scape.find_minima(key=keys[0], starts=_STARTS, batch=_STARTS)
    for key in keys[1:]:
        scape.find_saddles(key=key, starts=_ROUND, batch=_LANES, follow=_FOLLOW)
        if len(scape.ids(1)) >= orbits:
            break
    scape.connect(flow=flow)
    return cpu_seconds() - start, scape


@lru_cache(maxsize=1)
def reference() -> landscape.Landscape:
    """The complete network, its pathways as exact as they are by default."""
    _, scape = mapped(0, SADDLES, landscape.Flow())
    assert len(scape.ids(0)) == MINIMA
    return scape


def connections(scape: landscape.Landscape) -> Counter[tuple[float, ...]]:
    """Energies of each transition state and its two minima."""
    network = scape.network()
    ends = np.sort(network.minima.energy[network.ends], axis=1)
    rows = np.column_stack([network.saddles.energy, ends]).round(8)
    return Counter(tuple(map(float, row)) for row in rows)


def reached(found: _gmin.Saddles) -> Reached:
    """Count the orbits of what a peer found."""
    if not len(found.theta):
        return Reached(0, found.total)
    known = reference()
    with x64():
        fine = followed(known.problem, found.theta, 1, landscape.Follow(), _LANES)
    right = (fine["status"] == CONVERGED) & (fine["index"] == 1)
    rows = (fine[name][right] for name in ("theta", "energy", "values"))
    owner = tell_apart(known.problem, known.points, *rows).owner
    _, first = np.unique(owner, return_index=True)
    return Reached(len(first), float(found.seconds[right][first].max(initial=0.0)))


def quench_row(
    name: str, bar: float, peer: Callable[[Path, int], _gmin.Quenches], seeds: int
) -> Row:
    """Quenches a CPU second."""
    quenched(0)
    mine, theirs, stored, kept = [], [], [], []
    for seed in range(1, seeds + 1):
        seconds, scape = quenched(seed)
        mine.append(_QUENCHES / seconds)
        stored.append(len(scape.ids(0)))
        with tempfile.TemporaryDirectory() as folder:
            found = peer(Path(folder), seed)
        theirs.append(found.quenches / found.seconds)
        kept.append(len(found.energies))
    more = {
        "stored / true": Cell(max(stored) / MINIMA, bar=1.0),
        "true minima found": Cell(min(stored), bar=MINIMA, at_least=True),
        "stored / true of the peer": Cell(statistics.median(kept) / MINIMA),
    }
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    a, b = statistics.median(mine), statistics.median(theirs)
    return Row(name, a, b, ratio, bar, unit="1/s", at_least=True, more=more)


def network_row(
    name: str, bar: float, peer: Callable[[Path, int], _gmin.Saddles], seeds: int, together: int = 1
) -> Row:
    """CPU seconds to the orbits that the peer reaches."""

    def one(seed: int) -> _gmin.Saddles:
        with tempfile.TemporaryDirectory() as folder:
            return peer(Path(folder), seed)

    numbers = range(1, seeds + 1)
    with ThreadPoolExecutor(together) as pool:
        theirs = [reached(found) for found in pool.map(one, numbers)]
    mine, complete, wrong = [], [], []
    for seed, it in zip(numbers, theirs, strict=True):
        # Once to compile whatever shapes this seed meets, then the clock.
        (_, _), (seconds, _) = mapped(seed, it.orbits), mapped(seed, it.orbits)
        (_, _), (whole, scape) = mapped(seed, SADDLES), mapped(seed, SADDLES)
        assert (len(scape.ids(0)), len(scape.ids(1))) == (MINIMA, SADDLES)
        wrong.append((connections(scape) - connections(reference())).total())
        mine.append(seconds)
        complete.append(whole)
    orbits = [it.orbits for it in theirs]
    more = {
        "orbits of the peer": Cell(statistics.median(orbits)),
        "its best": Cell(max(orbits)),
        "complete": Cell(statistics.median(complete), "s"),
        "wrong connections": Cell(max(wrong), bar=0),
    }
    ratio = statistics.median(it.seconds / a for it, a in zip(theirs, mine, strict=True))
    a, b = statistics.median(mine), statistics.median(it.seconds for it in theirs)
    return Row(name, a, b, ratio, bar, at_least=True, more=more)


def _gmin_quenches(folder: Path, seed: int) -> _gmin.Quenches:
    return _gmin.quench(folder, seed, _GMIN_STEPS)


def _topsearch(folder: Path, seed: int, neighbours: int) -> dict[str, np.ndarray]:
    words = [str(folder), str(seed), str(_TOPSEARCH_STEPS), str(neighbours)]
    command = [str(TOPSEARCH), "-m", "studies.benchmarks._topsearch", *words]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    with np.load(folder / "found.npz") as found:
        return dict(found)


def _topsearch_quenches(folder: Path, seed: int) -> _gmin.Quenches:
    found = _topsearch(folder, seed, 0)
    energies = [0.0] * len(found["minima"])
    return _gmin.Quenches(_TOPSEARCH_STEPS, float(found["hopped"]), energies)


def _topsearch_network(folder: Path, seed: int) -> _gmin.Saddles:
    found = _topsearch(folder, seed, _NEIGHBOURS)
    return _gmin.Saddles(found["theta"], found["seconds"], float(found["total"]))


ROWS: dict[str, Callable[[int], Row]] = {
    "quenches_gmin": partial(quench_row, "quenches_gmin", GMIN_BAR, _gmin_quenches),
    "quenches_topsearch": partial(
        quench_row, "quenches_topsearch", TOPSEARCH_BAR, _topsearch_quenches
    ),
    "network_gmin": partial(
        network_row,
        "network_gmin",
        NETWORK_BAR,
        partial(_gmin.explore, cycles=_CYCLES),
        together=8,
    ),
    "network_optim": partial(
        network_row, "network_optim", NETWORK_BAR, partial(_gmin.follow, searches=_SEARCHES)
    ),
    "network_topsearch": partial(network_row, "network_topsearch", NETWORK_BAR, _topsearch_network),
}
