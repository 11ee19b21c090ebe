"""A record against the arithmetic that it cannot do without.

The floor is written by hand: vmapped VJPs, one contraction a parameter, eigenvalues, compiled as
one function. Ours is a due call of the recorder: split, program, transfer, and the committed
record.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import ntkstats as nts
from ntkstats.typing import Array
from studies.benchmarks import _systems
from studies.benchmarks._harness import alternate
from studies.benchmarks._rows import Row
from studies.benchmarks._systems import System

QUESTION = (
    "Cost of one due recorder call (entropy, trace, ranks, eigenvalues, layer traces; measured, "
    "transferred and committed to disk) against its floor: vmapped VJPs, contraction, eigenvalues."
)
COLUMNS = ("recorder call", "floor")
BAR = 1.5


def floor(system: System) -> Callable[[Any, Array], Array]:
    """Eigenvalues of the trace kernel, as short as it can be written."""
    n_out = system.apply(system.init(jax.random.key(0)), system.x[:1]).shape[1]

    @jax.jit
    def eigenvalues(params: Any, x: Array) -> Array:
        def rows(one: Array) -> Any:
            _, pull = jax.vjp(lambda p: system.apply(p, one[None])[0], params)
            return jax.vmap(lambda v: pull(v)[0])(jnp.eye(n_out))

        jacobian = jax.vmap(rows)(x)
        flat = [leaf.reshape(x.shape[0], -1) for leaf in jax.tree.leaves(jacobian)]
        kernel = sum(jnp.matmul(leaf, leaf.T, precision="highest") for leaf in flat)
        return nts.spectrum.eigenvalues(jnp.asarray(kernel))

    return eigenvalues


def due_call(recorder: nts.Recorder, steps: Iterator[int], params: Any) -> None:
    """Record the next step."""
    recorder(next(steps), params)


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
        lowest = floor(system)
        with tempfile.TemporaryDirectory() as folder:
            recorder = nts.Recorder(
                f"{folder}/run",
                nts.as_model(system.apply),
                nts.Probe(system.x),
                nts.collectors.ntk_spectrum(),
                at=nts.RecordAt.every(1),
            )
            ours = partial(due_call, recorder, itertools.count(), params)
            rows.append(alternate(system.name, ours, partial(lowest, params, system.x), bar=BAR))
            recorder.close()
    return rows
