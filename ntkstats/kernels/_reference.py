"""The reference engine: chunked vmapped VJPs, contracted tile by tile.

Exact for every model that JAX can differentiate, and the oracle that faster engines are held
against. Only one tile of Jacobian rows on each side is alive at a time; rows are recomputed, never
stored, when the whole Jacobian does not fit the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ntkstats._lanes import Index, after, loop
from ntkstats.kernels._contraction import (
    contract,
    leaf_diagonals,
    leaf_groups,
    mirrored,
    squared_norms,
)
from ntkstats.kernels._jacobian import jacobian_rows, jacobian_rows_coupled
from ntkstats.kernels._types import Task
from ntkstats.models import Model
from ntkstats.typing import Array, Inputs, Params, PyTree, State


class Tiling(NamedTuple):
    """How the rows of the Jacobian are cut.

    Attributes
    ----------
    samples, rows
        Samples a tile, and cotangents a tile.
    unroll
        Unroll the loops over tiles (see `ntkstats._lanes`).
    """

    samples: int
    rows: int
    unroll: bool = False


class Side(NamedTuple):
    """One of the two arguments of a kernel.

    Attributes
    ----------
    params, state, x
        What is differentiated, and where.
    cotangents
        ``(R, C)`` shared sign vectors (probe), ``(N, R, C)`` given ones, None for unit vectors
        (full, trace) and ones (sum), which are made tile by tile.
    weight
        ``(N,)`` sample weights, None when all are 1.
    """

    params: Params
    state: State
    x: Inputs
    cotangents: Array | None = None
    weight: Array | None = None


class Cut(NamedTuple):
    """One axis of N or R entries cut into equal tiles; the last one overlaps its neighbour.

    Overlapping instead of padding keeps every array at its true size; what a tile shares with
    the one before it enters as exact zeros, so tiles may simply be added.
    """

    total: int
    tile: int

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return count(self.total, self.tile)

    def start(self, i: Index) -> Index:
        """First entry of tile i."""
        if isinstance(i, int):  # known in an unrolled loop, so that slices stay static
            return min(i * self.tile, self.total - self.tile)
        return jnp.minimum(i * self.tile, self.total - self.tile)

    def entries(self, i: Index) -> tuple[Array, Array]:
        """Indices ``(tile,)`` of tile i, and which of them no earlier tile has."""
        index = self.start(i) + jnp.arange(self.tile)
        return index, index >= i * self.tile


def count(total: int, tile: int) -> int:
    """Number of tiles that cover ``total``."""
    return -(-total // tile)


def cuts(task: Task, tiling: Tiling) -> tuple[Cut, Cut]:
    """The sample axis and the cotangent axis, cut."""
    return Cut(task.n_samples, tiling.samples), Cut(task.n_rows, tiling.rows)


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """Dtype of contractions: float32 or wider, so that K is never stored in half precision."""
    return jnp.promote_types(dtype, jnp.float32)


def kernel_dtype(params: Params) -> jnp.dtype:
    """Float32, or float64 when a parameter is."""
    return accumulator(jnp.result_type(*jax.tree.leaves(params)))


def row_tiles(
    model: Model, task: Task, side: Side, tiling: Tiling
) -> Callable[[Index, Index, Index], PyTree]:
    """``rows(i, a, wait)``: Jacobian rows of sample tile i and cotangent tile a, float32 or wider.

    ``wait`` is a zero that is added to the tile's position (see `ntkstats._lanes.after`).
    """
    sample_cut, row_cut = cuts(task, tiling)

    def cotangents(i: Index, a: Index) -> Array:
        sample, new_sample = sample_cut.entries(i)
        row, new_row = row_cut.entries(a)
        if task.outputs == "sum":
            v = jnp.ones((1, 1, task.n_outputs))
        elif side.cotangents is None:
            v = jax.nn.one_hot(row, task.n_outputs)[None]
        elif task.outputs == "probe":
            v = side.cotangents[row][None]
        else:
            v = side.cotangents[sample[:, None], row[None, :]]
        return v * (new_sample[:, None] & new_row[None, :])[..., None].astype(v.dtype)

    def rows(i: Index, a: Index, wait: Index) -> PyTree:
        v = cotangents(i, a)
        start = sample_cut.start(i) + wait
        if model.coupled:
            index = start + jnp.arange(tiling.samples)
            tile = jacobian_rows_coupled(
                model, task.head, side.params, side.state, side.x, index, v
            )
        else:
            x = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, tiling.samples), side.x
            )
            tile = jacobian_rows(model, task.head, side.params, side.state, x, v)
        return jax.tree.map(lambda leaf: leaf.astype(accumulator(leaf.dtype)), tile)

    return rows


def diagonal(model: Model, task: Task, side: Side, tiling: Tiling) -> Array:
    """``(leaf, N, R)`` squared row norms for each parameter leaf, without forming any pair."""
    rows = row_tiles(model, task, side, tiling)
    samples, cotangents = cuts(task, tiling)
    dtype = kernel_dtype(side.params)
    shape = (len(jax.tree.leaves(side.params)), task.n_samples, task.n_rows)

    def body(t: Index, carry: tuple[Array, Index]) -> tuple[Array, Index]:
        out, wait = carry
        i, a = t // cotangents.tiles, t % cotangents.tiles
        block = squared_norms(rows(i, a, wait)).astype(dtype)
        out = _add(out, block, (0, samples.start(i), cotangents.start(a)))
        return out, after(block) if tiling.unroll else wait

    carry = (jnp.zeros(shape, dtype), 0)
    tiles = samples.tiles * cotangents.tiles
    out, _ = loop(0, tiles, body, carry, unroll=tiling.unroll)
    return out * _factor(task, side, dtype)[:, None]


def gram(
    model: Model,
    tasks: tuple[Task, Task],
    sides: tuple[Side, Side],
    tilings: tuple[Tiling, Tiling],
    *,
    symmetric: bool,
) -> tuple[Array, Array]:
    """Kernel between two sides; only tiles on or below the diagonal when it is symmetric.

    Returns
    -------
    kernel
        ``(N, R, M, S)`` for ``"all"``, ``(N, M)`` for ``"sum"``, ``(R, N, M)`` for ``"each"``.
    leaf_traces
        ``(leaf,)`` part of each parameter leaf in the trace (symmetric kernels only).
    """
    pairing = tasks[0].pairing
    left, right = map(row_tiles, (model, model), tasks, sides, tilings)
    (left_samples, left_rows), (right_samples, right_rows) = map(cuts, tasks, tilings)
    (n, r), (m, s) = ((task.n_samples, task.n_rows) for task in tasks)
    dtype = jnp.promote_types(*(kernel_dtype(side.params) for side in sides))
    shape = {"all": (n, r, m, s), "sum": (n, m), "each": (r, n, m)}[pairing]
    unroll = all(tiling.unroll for tiling in tilings)
    paired = pairing == "all"
    weighted = any(side.weight is not None for side in sides)
    root = [
        jnp.ones(task.n_samples, dtype) if side.weight is None else jnp.sqrt(side.weight)
        for task, side in zip(tasks, sides, strict=True)
    ]

    def finished(blocks: list[Array], i: Index, j: Index) -> Array:
        """Block of the kernel between two tiles, weighted and averaged."""
        block = sum(blocks[1:], blocks[0]).astype(dtype) * tasks[0].scale
        if not weighted:
            return block
        u, v = root[0][left_samples.entries(i)[0]], root[1][right_samples.entries(j)[0]]
        w = (u[:, None] * v[None, :]).astype(dtype)
        return block * (w[:, None, :, None] if paired else w)

    def position(i: Index, a: Index, j: Index, b: Index) -> tuple[Index, ...]:
        p, q, u, v = (
            left_samples.start(i),
            left_rows.start(a),
            right_samples.start(j),
            right_rows.start(b),
        )
        return {"all": (p, q, u, v), "sum": (p, u), "each": (q, p, u)}[pairing]

    def outer(t: Index, carry: tuple[Array, Array, Index]) -> tuple[Array, Array, Index]:
        out, diagonals, wait = carry
        i, a = t // left_rows.tiles, t % left_rows.tiles
        tile = left(i, a, wait)
        groups = leaf_groups(pairing, tile)

        def inner(u: Index, carry: tuple[Array, Index]) -> tuple[Array, Index]:
            out, wait = carry
            j, b = (u // right_rows.tiles, u % right_rows.tiles) if paired else (u, a)
            block = finished(contract(pairing, groups, tile, right(j, b, wait)), i, j)
            out = _add(out, block, position(i, a, j, b))
            if symmetric:
                out = _add(out, mirrored(pairing, block), position(j, b, i, a))
            return out, after(block) if unroll else wait

        if symmetric:
            blocks = contract(pairing, groups, tile, tile)
            block = finished(blocks, i, i)
            # A matrix product need not round symmetrically.
            block = 0.5 * (block + mirrored(pairing, block))
            out = _add(out, block, position(i, a, i, a))
            parts = leaf_diagonals(pairing, groups, tile, blocks).astype(dtype)
            diagonals = _add(diagonals, parts, (0, left_samples.start(i)))
            wait = after(block) if unroll else wait
            stop = t if paired else i
        else:
            stop = right_samples.tiles * (right_rows.tiles if paired else 1)
        out, wait = loop(0, stop, inner, (out, wait), unroll=unroll)
        return out, diagonals, wait

    diagonals = jnp.zeros((len(jax.tree.leaves(sides[0].params)), n), dtype)
    carry = (jnp.zeros(shape, dtype), diagonals, 0)
    out, diagonals, _ = loop(0, left_samples.tiles * left_rows.tiles, outer, carry, unroll=unroll)
    return out, (diagonals * _factor(tasks[0], sides[0], dtype)).sum(1)


def _factor(task: Task, side: Side, dtype: jnp.dtype) -> Array:
    """What multiplies the squared norms of each sample's rows, ``(N,)`` or ``(1,)``."""
    weight = jnp.ones(1, dtype) if side.weight is None else side.weight.astype(dtype)
    return weight * task.scale


def _add(out: Array, block: Array, start: tuple[Index, ...]) -> Array:
    present = jax.lax.dynamic_slice(out, start, block.shape)
    return jax.lax.dynamic_update_slice(out, present + block, start)
