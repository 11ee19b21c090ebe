"""Kernels whose samples are spread over the devices of a ring; runs inside `jax.shard_map`.

Every device makes the tiles of its own samples and sends them round. A block between two devices
is computed by one of them, and its mirror image is sent to the other: half of the way round is
enough for a symmetric kernel. Nobody ever holds more of the kernel than its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ntkstats._lanes import Index, after, loop
from ntkstats.kernels._tiles import (
    Cut,
    Side,
    Stream,
    added,
    cuts,
    kernel_dtype,
    stacked,
    tiles_of,
)
from ntkstats.kernels._types import Task
from ntkstats.kernels.contraction._contraction import contract, grouped
from ntkstats.kernels.contraction._factors import Factor, Rows, Tile
from ntkstats.kernels.contraction._triangle import mirrored
from ntkstats.typing import Array


class Ring(NamedTuple):
    """Devices along one axis of a mesh.

    Attributes
    ----------
    axis
        Name of the axis.
    size
        Number of devices.
    """

    axis: str
    size: int

    @property
    def here(self) -> Array:
        """Position of the device that asks."""
        # As wide as loop counters are, with which it is put together.
        return jax.lax.axis_index(self.axis).astype(int)

    def neighbour(self, steps: int) -> Array:
        """Position of the device that many steps on."""
        return (self.here + steps) % self.size

    def passed(self, value: Array, steps: int) -> Array:
        """What the device ``steps`` before this one gave, while this one gives its own on."""
        pairs = [(k, (k + steps) % self.size) for k in range(self.size)]
        return jax.lax.ppermute(value, self.axis, pairs)

    def passed_tile(self, tile: Tile, steps: int) -> Tile:
        """The same for all arrays of a tile."""
        return _each_array(tile, lambda value: self.passed(value, steps))


class Position(NamedTuple):
    """Where a tile lies among the samples of its device, and among the cotangents."""

    samples: Index
    rows: Index


Pair: TypeAlias = tuple[Stream, Stream]
Carry: TypeAlias = tuple[Array, Array, Index]


def gram(
    ring: Ring,
    tasks: tuple[Task, Task],
    sides: tuple[Side, Side],
    streams: Sequence[Pair],
    *,
    symmetric: bool,
) -> tuple[Array, Array]:
    """Rows of the kernel that belong to this device.

    Parameters
    ----------
    ring
        The devices; D of them.
    tasks
        What is computed, with the numbers of samples n and m that one device has on either side.
    sides
        Inputs of this device; all else is the same everywhere, and weights ``(D n,)`` and
        ``(D m,)`` are those of all samples (None on both sides if all are 1).
    streams
        Groups of parameters.
    symmetric
        Whether the two sides are the same.

    Returns
    -------
    rows
        ``(n, R, D m, S)`` for ``"all"``, ``(n, D m)`` for ``"sum"``, ``(R, n, D m)`` for
        ``"each"``.
    leaf_traces
        ``(leaf,)`` part of each parameter leaf in the trace of the whole kernel (symmetric ones).
    """
    (n, r), (m, s) = ((task.n_samples, task.n_rows) for task in tasks)
    dtype = jnp.promote_types(*(kernel_dtype(side.params) for side in sides))
    columns = ring.size * m
    shape = {"all": (n, r, columns, s), "sum": (n, columns), "each": (r, n, columns)}
    roots = None
    if sides[0].weight is not None and sides[1].weight is not None:
        roots = jnp.sqrt(sides[0].weight), jnp.sqrt(sides[1].weight)
    diagonals = jnp.zeros((len(jax.tree.leaves(sides[0].params)), n), dtype)
    carry: Carry = (jnp.zeros(shape[tasks[0].pairing], dtype), diagonals, 0)
    for pair in streams:
        carry = _Group(ring, tasks, sides, pair, roots, dtype, symmetric).add(carry)
    out, diagonals, _ = carry
    if sides[0].weight is not None:
        own = jax.lax.dynamic_slice_in_dim(sides[0].weight, ring.here * n, n)
        diagonals = diagonals * own.astype(dtype)
    return out, jax.lax.psum(diagonals.sum(1) * tasks[0].scale, ring.axis)


@dataclass(frozen=True)
class _Group:
    """What one group of parameters adds to the rows of this device."""

    ring: Ring
    tasks: tuple[Task, Task]
    sides: tuple[Side, Side]
    streams: Pair
    roots: tuple[Array, Array] | None
    dtype: jnp.dtype
    symmetric: bool

    @property
    def pairing(self) -> str:
        return self.tasks[0].pairing

    @property
    def unroll(self) -> bool:
        return all(stream.tiling.unroll for stream in self.streams)

    def cuts(self, side: int) -> tuple[Cut, Cut]:
        return cuts(self.tasks[side], self.streams[side].tiling)

    def tile(self, side: int, at: Position, wait: Index) -> Tile:
        return tiles_of(self.tasks[side], self.sides[side], self.streams[side])(*at, wait)

    def roots_of(self, side: int, at: Position, device: Array) -> Array:
        """Roots of the weights of a tile's samples."""
        assert self.roots is not None
        cut = self.cuts(side)[0]
        start = device * self.tasks[side].n_samples + cut.start(at.samples)
        return jax.lax.dynamic_slice_in_dim(self.roots[side], start, cut.tile)

    def after(self, block: Array | None, wait: Index) -> Index:
        return after(block) if self.unroll and block is not None else wait

    def add(self, carry: Carry) -> Carry:
        """Keep one tile after the other; all tiles with a pair left to it go round, once each.

        The tiles at one position go at the same time from all devices. In a symmetric kernel
        half of the way is enough. Two devices just half the way apart would both compute the
        same: there the later of two positions is left out, and a block of equal positions is
        shared.
        """
        (samples, rows), (samples2, rows2) = self.cuts(0), self.cuts(1)
        paired = self.pairing == "all"
        tiles = samples2.tiles * (rows2.tiles if paired else 1)
        apart, before = self.ring.size // 2, (self.ring.size - 1) // 2

        def kept(t: Index, carry: Carry) -> Carry:
            out, diagonals, wait = carry
            here = Position(t // rows.tiles, t % rows.tiles)
            tile = self.tile(0, here, wait)
            meeting = _Meeting(self, tile, here, grouped(self.pairing, tile))
            if self.symmetric:
                out, diagonals, block = meeting.with_itself(out, diagonals)
                wait = self.after(block, wait)
                now = t if paired else here.samples
                parts = [(0, now, 0, apart), (now + 1, tiles, 1, before)]
            else:
                parts = [(0, tiles, 0, self.ring.size - 1)]

            def going(u: Index, carry: tuple[Array, Index], first: int, last: int) -> Any:
                out, wait = carry
                there = Position(u // rows2.tiles, u % rows2.tiles)
                if not paired:
                    there = Position(u, here.rows)
                other = self.tile(1, there, wait)
                out, _, block = meeting.with_others(out, other, there, first, last)
                return out, self.after(block, wait)

            for start, stop, first, last in parts:
                if first <= last:
                    body = partial(going, first=first, last=last)
                    out, wait = loop(start, stop, body, (out, wait), unroll=self.unroll)
            return out, diagonals, wait

        return loop(0, samples.tiles * rows.tiles, kept, carry, unroll=self.unroll)


class _Meeting(NamedTuple):
    """A tile that is kept while others pass by."""

    group: _Group
    tile: Tile
    here: Position
    together: list[list[int]]

    def with_others(
        self, out: Array, other: Tile, there: Position, first: int, last: int
    ) -> tuple[Array, Tile, Array | None]:
        """Blocks with another tile of the devices from ``first`` to ``last`` steps away.

        Also returns the tile of the last one, and the last block.
        """
        group, block = self.group, None
        ring = group.ring
        # Written out: then the next tile can be on its way while this one is contracted.
        for step in range(first, last + 1):
            if step > 0:
                other = ring.passed_tile(other, 1)
            block, _ = contract(group.pairing, self.together, self.tile, other)
            source = ring.neighbour(-step)
            block = self._finished(block, there, source)
            out = self._added(out, block, self.here, there, source)
            if group.symmetric:
                image = mirrored(group.pairing, block)
                image = ring.passed(image, -step) if step > 0 else image
                out = self._added(out, image, there, self.here, ring.neighbour(step))
        return out, other, block

    def with_itself(self, out: Array, diagonals: Array) -> tuple[Array, Array, Array]:
        """Blocks with the tiles at the same position, of this device and of all others."""
        group, here = self.group, self.here
        ring, pairing = group.ring, group.pairing
        block, parts = contract(pairing, self.together, self.tile, self.tile, symmetric=True)
        block = self._finished(block, here, ring.here)
        # A matrix product need not round symmetrically.
        block = 0.5 * (block + mirrored(pairing, block))
        out = self._added(out, block, here, here, ring.here)
        norms = stacked(parts, diagonals.shape[0]).astype(group.dtype)
        diagonals = added(diagonals, norms, (0, group.cuts(0)[0].start(here.samples)))
        before = (ring.size - 1) // 2
        out, other, last = self.with_others(out, self.tile, here, 1, before)
        if ring.size % 2 == 0:
            last = self._shared(ring.passed_tile(other, 1))
            out = self._added(out, last, here, here, ring.neighbour(ring.size // 2))
        return out, diagonals, block if last is None else last

    def _shared(self, other: Tile) -> Array:
        """Block with the device across the ring: each of the two computes half of it."""
        ring, pairing = self.group.ring, self.group.pairing
        across = ring.size // 2
        size = self.group.cuts(0)[0].tile
        half = -(-size // 2)
        axis = 1 if pairing == "each" else 0
        lower = ring.here < across

        def between(left: Tile, right: Tile) -> Array:
            return contract(pairing, self.together, left, right)[0]

        # Rows of the lower device's block: the first half by itself, the second by the other one.
        piece = jax.lax.cond(
            lower,
            lambda: between(_samples(self.tile, 0, half), other),
            lambda: between(_samples(other, size - half, size), self.tile),
        )
        theirs = ring.passed(piece, across)
        top, bottom = jnp.where(lower, piece, theirs), jnp.where(lower, theirs, piece)
        # The halves of an odd number share one row.
        bottom = jax.lax.slice_in_dim(bottom, 2 * half - size, half, axis=axis)
        block = jnp.concatenate([top, bottom], axis)
        block = jnp.where(lower, block, mirrored(pairing, block))
        return self._finished(block, self.here, ring.neighbour(across))

    def _finished(self, block: Array, there: Position, source: Array) -> Array:
        """Block with a tile of another device, weighted and averaged."""
        group = self.group
        block = block.astype(group.dtype) * group.tasks[0].scale
        if group.roots is None:
            return block
        ends = ((0, self.here, group.ring.here), (1, there, source))
        left, right = (group.roots_of(side, at, device) for side, at, device in ends)
        product = (left[:, None] * right[None, :]).astype(group.dtype)
        return block * (product[:, None, :, None] if group.pairing == "all" else product)

    def _added(
        self, out: Array, block: Array, here: Position, there: Position, source: Array
    ) -> Array:
        """The rows with a block at its place; ``source`` is the device of its columns."""
        group = self.group
        (samples, rows), (samples2, rows2) = group.cuts(0), group.cuts(1)
        p, q = samples.start(here.samples), rows.start(here.rows)
        u = source * group.tasks[1].n_samples + samples2.start(there.samples)
        v = rows2.start(there.rows)
        start = {"all": (p, q, u, v), "sum": (p, u), "each": (q, p, u)}[group.pairing]
        return added(out, block, start)


def _each_array(tile: Tile, change: Callable[[Array], Array]) -> list[Factor]:
    """The factors with other arrays; positions of leaves stay."""
    return [
        factor._replace(value=change(factor.value))
        if isinstance(factor, Rows)
        else factor._replace(left=change(factor.left), right=change(factor.right))
        for factor in tile
    ]


def _samples(tile: Tile, start: int, stop: int) -> list[Factor]:
    """Some samples of a tile; they are the leading axis of all of its arrays."""
    return _each_array(tile, lambda value: value[start:stop])
