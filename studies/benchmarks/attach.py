"""What a recorder costs in every kind of loop: when nothing is due, and when a record is.

*Nothing due*: the same number of training steps with a recorder (or watch) that is never due,
against the loop without it. *A record*: what training with a record at every step takes longer
than without, per record, against the floor: the engine's kernel and its eigenvalues, compiled as
one function and left on the device; for torch, the Jacobian by ``torch.func``, the kernel and its
eigenvalues. Records are on disk before the clock stops.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from studies.benchmarks import _systems
from studies.benchmarks._harness import alternate, seconds
from studies.benchmarks._loops import (
    BUSY_STEPS,
    IDLE_STEPS,
    Loop,
    equinox_loop,
    linen_loop,
    nnx_loop,
    scan_loop,
)
from studies.benchmarks._rows import Cell, Row
from studies.benchmarks.recording import floor

QUESTION = (
    "Training MLP 784-256-256-10 on batches of 64: a recorder that is not due against the bare "
    "loop, and one record (NTK spectrum of 100 samples, on disk) against its floor."
)
COLUMNS = ("with a recorder", "bare loop, or floor")
WIDTHS = (784, 256, 256, 10)
IDLE_BAR = 1.01
RECORD_BAR = 1.5
SEEDS = 4
SEEDS_BAR = 6.0


def loops(
    system: _systems.System, folder: Path, least: Callable[[], Any]
) -> Iterator[tuple[str, Loop, Callable[[], Any]]]:
    """Every kind of loop, with its name in the table, and the floor of its records."""
    yield "Python, linen TrainState", linen_loop(system, WIDTHS, folder / "linen"), least
    yield "Python, nnx", nnx_loop(system, WIDTHS, folder / "nnx"), least
    yield "Python, equinox", equinox_loop(system, WIDTHS, folder / "equinox"), least
    yield "watch.scan", scan_loop(system, folder / "scan", "scan"), least
    yield "lax.scan, measure_if", scan_loop(system, folder / "gate", "gate"), least
    yield "lax.scan, optax chain", scan_loop(system, folder / "chain", "chain"), least
    if importlib.util.find_spec("torch") is not None:
        from studies.benchmarks import _torch_loop

        loop = _torch_loop.torch_loop(system, WIDTHS, folder / "torch")
        name = f"Python, torch ({_torch_loop.SAMPLES} samples)"
        yield name, loop, _torch_loop.torch_floor(loop, system)


def record_row(name: str, loop: Loop, least: Callable[[], Any], repeats: int = 9) -> Row:
    """A record at every step, less the loop, against the floor."""
    loop.busy(BUSY_STEPS)
    loop.bare(BUSY_STEPS)
    seconds(least)
    samples = []
    for _ in range(repeats):
        busy = seconds(lambda: loop.busy(BUSY_STEPS))
        bare = seconds(lambda: loop.bare(BUSY_STEPS))
        one = seconds(lambda: [least() for _ in range(BUSY_STEPS)]) / BUSY_STEPS
        samples.append(((busy - bare) / BUSY_STEPS, one))
    return Row(
        f"{name}: a record",
        statistics.median(ours for ours, _ in samples),
        statistics.median(peer for _, peer in samples),
        statistics.median(ours / peer for ours, peer in samples),
        RECORD_BAR,
    )


def run() -> list[Row]:
    """Measure every kind of loop."""
    system = _systems.mlp(WIDTHS[1:-1], n=6400)
    small = system._replace(x=system.x[:100], y=system.y[:100])
    least = floor(small, system.init(jax.random.key(0)))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, loop, own in loops(system, folder, least):
            idle = alternate(
                f"{name}: nothing due, {IDLE_STEPS} steps",
                partial(loop.idle, IDLE_STEPS),
                partial(loop.bare, IDLE_STEPS),
                bar=IDLE_BAR,
            )
            more = loop.traces["idle"] - loop.traces["bare"]
            rows.append(replace(idle, more={"traced more often": Cell(more, bar=2)}))
            rows.append(record_row(name, loop, own))
        for kind, name in (("scan", "watch.scan"), ("gate", "lax.scan, measure_if")):
            many, one = (
                scan_loop(system, folder / f"{kind}_{seeds}", kind, seeds=seeds)
                for seeds in (SEEDS, 1)
            )
            rows.append(
                alternate(
                    f"{name}: {SEEDS} seeds against one, a record at every step",
                    partial(many.busy, BUSY_STEPS),
                    partial(one.busy, BUSY_STEPS),
                    bar=SEEDS_BAR,
                    repeats=7,
                )
            )
    return rows
