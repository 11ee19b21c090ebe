"""A record against the arithmetic that it cannot do without.

The floor is the kernel by the engine's own plan and its eigenvalues, compiled as one function and
left on the device. Ours is a due call of the recorder: split, program, transfer, and the committed
record. Both are done thirty times in a row, and ours waits at the end until all are on disk.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

import ntkstats as nts
from ntkstats.typing import Array
from studies.benchmarks import _systems
from studies.benchmarks._harness import alternate
from studies.benchmarks._rows import Row
from studies.benchmarks._systems import System

QUESTION = (
    "Cost of one due recorder call (entropy, trace, ranks, eigenvalues, layer traces; measured, "
    "transferred and committed to disk; thirty in a row) against its floor: the engine's kernel "
    "and eigenvalues."
)
COLUMNS = ("recorder call", "floor")
BAR = 1.5
CALLS = 30


def floor(system: System, params: Any) -> Callable[[], Array]:
    """Eigenvalues of the trace kernel, and nothing else."""
    model = nts.as_model(system.apply)
    params, state = model.split(params)
    plan = nts.kernels.plan(model, params, state, system.x, outputs="trace")

    @jax.jit
    def eigenvalues(params: Any, x: Array) -> Array:
        return nts.spectrum.eigenvalues(plan.gram(params, state, x).matrix)

    return partial(eigenvalues, params, system.x)


def due_calls(recorder: nts.Recorder, steps: Iterator[int], params: Any) -> None:
    """Record the next steps, and wait until they are on disk."""
    for _ in range(CALLS):
        recorder(next(steps), params)
    recorder.flush()


def in_a_row(fn: Callable[[], Array]) -> None:
    """As many calls of the floor, one after the other."""
    for _ in range(CALLS):
        jax.block_until_ready(fn())


def run() -> list[Row]:
    """Measure every case."""
    systems = [
        _systems.mlp((16,), n=100),
        _systems.mlp((128, 128), n=100),
        _systems.mlp((256, 256), n=50),
        _systems.cnn(8, n=64),
    ]
    rows = []
    for system in systems:
        params = system.init(jax.random.key(0))
        with tempfile.TemporaryDirectory() as folder:
            recorder = nts.Recorder(
                f"{folder}/run",
                nts.as_model(system.apply),
                nts.Probe(system.x),
                nts.collectors.ntk_spectrum(),
                at=nts.RecordAt.every(1),
            )
            ours = partial(due_calls, recorder, itertools.count(), params)
            peer = partial(in_a_row, floor(system, params))
            rows.append(alternate(system.name, ours, peer, bar=BAR, calls=CALLS))
            recorder.close()
    return rows
