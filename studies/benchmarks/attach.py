"""What a recorder costs in every kind of loop: when nothing is due, and when a record is.

*Nothing due*: the same number of training steps with a recorder (or watch) that is never due,
against the loop without it. *A record*: what training with a record at every step takes longer
than without, per record, against the floor: what the same loop takes longer with the engine's
kernel and its eigenvalues at every step, compiled as one function and left on the device; for
torch, the Jacobian by ``torch.func``, the kernel and its eigenvalues. Records are on disk before
the clock stops.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from studies.benchmarks import _systems
from studies.benchmarks._harness import alternate, compared, seconds
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

QUESTION = (
    "Training MLP 784-256-256-10 on batches of 64: a recorder that is not due against the bare "
    "loop, and one record (NTK spectrum of 100 samples, on disk) against its floor: kernel and "
    "eigenvalues alone, at every step of the same loop. That program run by itself is faster; it "
    "is the floor of the table `recording`, by which records of small networks miss the bar."
)
COLUMNS = ("with a recorder", "bare loop, or floor")
WIDTHS = (784, 256, 256, 10)
IDLE_BAR = 1.01
RECORD_BAR = 1.5
SEEDS = 4
SEEDS_BAR = 6.0


def loops(system: _systems.System, folder: Path) -> Iterator[tuple[str, Loop]]:
    """Every kind of loop, with its name in the table."""
    yield "Python, linen TrainState", linen_loop(system, WIDTHS, folder / "linen")
    yield "Python, nnx", nnx_loop(system, WIDTHS, folder / "nnx")
    yield "Python, equinox", equinox_loop(system, WIDTHS, folder / "equinox")
    yield "watch.scan", scan_loop(system, folder / "scan", "scan")
    yield "lax.scan, measure_if", scan_loop(system, folder / "gate", "gate")
    yield "lax.scan, optax chain", scan_loop(system, folder / "chain", "chain")
    if importlib.util.find_spec("torch") is not None:
        from studies.benchmarks import _torch_loop

        name = f"Python, torch ({_torch_loop.SAMPLES} samples)"
        yield name, _torch_loop.torch_loop(system, WIDTHS, folder / "torch")


def record_row(name: str, loop: Loop, repeats: int = 15) -> Row:
    """A record at every step, less the loop, against the floor in the same loop."""
    forms = (loop.busy, loop.least, loop.bare)
    for form in forms:
        form(BUSY_STEPS)
    samples = []
    for _ in range(repeats):
        busy, least, bare = (seconds(partial(form, BUSY_STEPS)) for form in forms)
        samples.append(((busy - bare) / BUSY_STEPS, (least - bare) / BUSY_STEPS))
    return compared(f"{name}: a record", samples, bar=RECORD_BAR)


def run() -> list[Row]:
    """Measure every kind of loop."""
    system = _systems.mlp(WIDTHS[1:-1], n=6400)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, loop in loops(system, folder):
            idle = alternate(
                f"{name}: nothing due, {IDLE_STEPS} steps",
                partial(loop.idle, IDLE_STEPS),
                partial(loop.bare, IDLE_STEPS),
                bar=IDLE_BAR,
                repeats=101,  # a hundredth is asked for
            )
            more = loop.traces["idle"] - loop.traces["bare"]
            rows.append(replace(idle, more={**idle.more, "traced more often": Cell(more, bar=2)}))
            rows.append(record_row(name, loop))
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
