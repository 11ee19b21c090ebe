"""Kernels and diagonals tile by tile, whatever the engine that makes the tiles.

Only one tile on each side is alive at a time; tiles are made again, never stored, when all of them
do not fit the budget. Parameters may be taken in groups, one after the other: the kernel is a sum
over parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ntkstats._lanes import Index, after, loop
from ntkstats.kernels._engines import Engine, accumulator
from ntkstats.kernels._types import Task
from ntkstats.kernels.contraction._contraction import contract, grouped, squared_norms
from ntkstats.kernels.contraction._factors import Tile
from ntkstats.kernels.contraction._triangle import mirrored
from ntkstats.typing import Array, Inputs, Params, State


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


def kernel_dtype(params: Params) -> jnp.dtype:
    """Float32, or float64 when a parameter is."""
    return accumulator(jnp.result_type(*jax.tree.leaves(params)))


class Stream(NamedTuple):
    """A group of parameters on one side, with the engine and the tiles that are meant for it.

    Attributes
    ----------
    engine
        Makes the tiles.
    tiling
        How they are cut.
    """

    engine: Engine
    tiling: Tiling


def tiles_of(task: Task, side: Side, stream: Stream) -> Callable[[Index, Index, Index], Tile]:
    """``tile(i, a, wait)``: sample tile i and cotangent tile a, in float32 or wider.

    ``wait`` is a zero that is added to the tile's position (see `ntkstats._lanes.after`).
    """
    engine, tiling = stream
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

    def tile(i: Index, a: Index, wait: Index) -> Tile:
        start = sample_cut.start(i) + wait
        return engine.tile(side.params, side.state, side.x, start, cotangents(i, a))

    return tile


def diagonal(task: Task, side: Side, streams: Sequence[Stream]) -> Array:
    """``(leaf, N, R)`` squared row norms for each parameter leaf, without forming any pair."""
    dtype = kernel_dtype(side.params)
    leaves = len(jax.tree.leaves(side.params))
    out = jnp.zeros((leaves, task.n_samples, task.n_rows), dtype)
    wait: Index = 0
    for stream in streams:
        out, wait = _diagonal(task, side, stream, out, wait)
    return out * _factor(task, side, dtype)[:, None]


def _diagonal(
    task: Task, side: Side, stream: Stream, out: Array, wait: Index
) -> tuple[Array, Index]:
    tile = tiles_of(task, side, stream)
    samples, cotangents = cuts(task, stream.tiling)
    unroll = stream.tiling.unroll

    def body(t: Index, carry: tuple[Array, Index]) -> tuple[Array, Index]:
        out, wait = carry
        i, a = t // cotangents.tiles, t % cotangents.tiles
        norms = {
            leaf: part
            for factor in tile(i, a, wait)
            for leaf, part in squared_norms(factor).items()
        }
        block = stacked(norms, out.shape[0]).astype(out.dtype)
        out = added(out, block, (0, samples.start(i), cotangents.start(a)))
        return out, after(block) if unroll else wait

    tiles = samples.tiles * cotangents.tiles
    return loop(0, tiles, body, (out, wait), unroll=unroll)


def gram(
    tasks: tuple[Task, Task],
    sides: tuple[Side, Side],
    streams: Sequence[tuple[Stream, Stream]],
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
    (n, r), (m, s) = ((task.n_samples, task.n_rows) for task in tasks)
    dtype = jnp.promote_types(*(kernel_dtype(side.params) for side in sides))
    shape = {"all": (n, r, m, s), "sum": (n, m), "each": (r, n, m)}[tasks[0].pairing]
    diagonals = jnp.zeros((len(jax.tree.leaves(sides[0].params)), n), dtype)
    carry: Carry = (jnp.zeros(shape, dtype), diagonals, 0)
    for pair in streams:
        carry = _gram(tasks, sides, pair, carry, symmetric=symmetric)
    out, diagonals, _ = carry
    return out, (diagonals * _factor(tasks[0], sides[0], dtype)).sum(1)


Carry: TypeAlias = tuple[Array, Array, Index]


def _gram(
    tasks: tuple[Task, Task],
    sides: tuple[Side, Side],
    streams: tuple[Stream, Stream],
    carry: Carry,
    *,
    symmetric: bool,
) -> Carry:
    """Add what one group of parameters contributes."""
    pairing = tasks[0].pairing
    dtype = carry[0].dtype
    left, right = map(tiles_of, tasks, sides, streams)
    tilings = [stream.tiling for stream in streams]
    (left_samples, left_rows), (right_samples, right_rows) = map(cuts, tasks, tilings)
    unroll = all(tiling.unroll for tiling in tilings)
    paired = pairing == "all"
    weighted = any(side.weight is not None for side in sides)
    root = [
        jnp.ones(task.n_samples, dtype) if side.weight is None else jnp.sqrt(side.weight)
        for task, side in zip(tasks, sides, strict=True)
    ]

    def finished(block: Array, i: Index, j: Index) -> Array:
        """Block of the kernel between two tiles, weighted and averaged."""
        block = block.astype(dtype) * tasks[0].scale
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

    def outer(t: Index, carry: Carry) -> Carry:
        out, diagonals, wait = carry
        i, a = t // left_rows.tiles, t % left_rows.tiles
        tile = left(i, a, wait)
        groups = grouped(pairing, tile)

        def inner(u: Index, carry: tuple[Array, Index]) -> tuple[Array, Index]:
            out, wait = carry
            j, b = (u // right_rows.tiles, u % right_rows.tiles) if paired else (u, a)
            block = finished(contract(pairing, groups, tile, right(j, b, wait))[0], i, j)
            out = added(out, block, position(i, a, j, b))
            if symmetric:
                out = added(out, mirrored(pairing, block), position(j, b, i, a))
            return out, after(block) if unroll else wait

        if symmetric:
            block, parts = contract(pairing, groups, tile, tile, symmetric=True)
            block = finished(block, i, i)
            # A matrix product need not round symmetrically.
            block = 0.5 * (block + mirrored(pairing, block))
            out = added(out, block, position(i, a, i, a))
            norms = stacked(parts, diagonals.shape[0]).astype(dtype)
            diagonals = added(diagonals, norms, (0, left_samples.start(i)))
            wait = after(block) if unroll else wait
            stop = t if paired else i
        else:
            stop = right_samples.tiles * (right_rows.tiles if paired else 1)
        out, wait = loop(0, stop, inner, (out, wait), unroll=unroll)
        return out, diagonals, wait

    return loop(0, left_samples.tiles * left_rows.tiles, outer, carry, unroll=unroll)


def stacked(parts: dict[int, Array], leaves: int) -> Array:
    """Parts of all leaves along a leading axis; zero for those that have none."""
    some = next(iter(parts.values()))
    return jnp.stack([parts.get(leaf, jnp.zeros_like(some)) for leaf in range(leaves)])


def _factor(task: Task, side: Side, dtype: jnp.dtype) -> Array:
    """What multiplies the squared norms of each sample's rows, ``(N,)`` or ``(1,)``."""
    weight = jnp.ones(1, dtype) if side.weight is None else side.weight.astype(dtype)
    return weight * task.scale


def added(out: Array, block: Array, start: tuple[Index, ...]) -> Array:
    """An array with a block added at a place."""
    present = jax.lax.dynamic_slice(out, start, block.shape)
    return jax.lax.dynamic_update_slice(out, present + block, start)
