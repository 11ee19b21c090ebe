"""A test of the structured engine against an ordinary gradient.

For any cotangent v of a batch, ``v^T K v = |J^T v|^2``: the left side by factors, the right side
by one VJP of the whole batch.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.kernels._jacobian import head_outputs
from ntkstats.kernels._types import Task
from ntkstats.kernels.contraction._contraction import contract, grouped
from ntkstats.kernels.structured._choice import choices
from ntkstats.kernels.structured._structure import Structure
from ntkstats.kernels.structured._structured import factors
from ntkstats.models import Model
from ntkstats.typing import Array, Inputs, Params, State

SAMPLES = 3
# Both sides round differently, in half precision already on the way forward.
TOLERANCE = {2: 0.1, 4: 1e-3, 8: 1e-8}


def disagreement(
    structure: Structure, model: Model, head: str, params: Params, state: State, x: Inputs
) -> str | None:
    """What is wrong, in a sentence; None if nothing is (or nothing is finite)."""
    total = jax.tree.leaves(x)[0].shape[0]
    # Far apart: neighbours can be alike, such as sequences of nothing but padding.
    samples = np.unique(np.linspace(0, total - 1, SAMPLES).astype(int))
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[samples], x)
    n = len(samples)
    out = structure.graph.inputs[-1]
    v = jax.random.normal(jax.random.key(0), (n, 1, out.size), out.dtype)
    task = Task("given", head, n, out.size, 1)
    chosen = choices(structure, task)

    @jax.jit
    def both(params: Params, state: State, batch: Inputs) -> tuple[Array, Array, Array]:
        tile = factors(structure, chosen, params, state, batch, v)
        total, _ = contract("sum", grouped("sum", tile), tile, tile)
        _, pull = jax.vjp(lambda p: head_outputs(model, head, p, state, batch), params)
        gradient = pull(v[:, 0])[0]
        squares = [jnp.sum(g.astype(total.dtype) ** 2) for g in jax.tree.leaves(gradient)]
        square = jnp.stack(squares).sum()
        return total.sum(), square, jnp.trace(total)

    ours, expected, size = (float(np.asarray(value)) for value in both(params, state, batch))
    if not math.isfinite(expected) or not math.isfinite(size):
        return None
    # As JAX computes with them: NumPy arrays may be wider.
    dtypes = [jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)]
    width = min(dtype.itemsize for dtype in dtypes)
    if abs(ours - expected) <= TOLERANCE[width] * max(abs(size), abs(expected)):
        return None
    return f"v^T K v = {ours:.6g} on a test vector, but |J^T v|^2 = {expected:.6g}."
