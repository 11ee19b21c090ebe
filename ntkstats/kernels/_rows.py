"""Inner products of rows that are written out, at once or a piece at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ntkstats._lanes import loop
from ntkstats.kernels._factors import Formed, Rows
from ntkstats.typing import Array

# Rows a block from which a product of a matrix with itself is worth computing by halves: thinner
# products run so much slower that nothing is gained.
HALVED_FROM = 256


def is_wide(pairing: str, width: int, samples: int, rows: int) -> bool:
    """Whether an array of that many parameters is wider than its tile of rows is long.

    The matrix product of a narrow one would write more than it reads, so narrow ones are
    contracted together.
    """
    if pairing == "sum":
        return rows * width >= samples
    return width >= samples * (rows if pairing == "all" else 1)


def contract_rows(
    pairing: str, left: Sequence[Rows], right: Sequence[Rows], symmetric: bool
) -> Array:
    ours, theirs = (
        jnp.concatenate([flat(factor) for factor in side], -1) for side in (left, right)
    )
    return _contract_written(pairing, ours, theirs, symmetric)


def _contract_written(pairing: str, ours: Array, theirs: Array, symmetric: bool) -> Array:
    """Inner products of rows ``(n, r, w)`` and ``(m, s, w)``."""
    n, r, _ = ours.shape
    m, s, _ = theirs.shape
    if pairing == "all":
        block = product(ours.reshape(n * r, -1), theirs.reshape(m * s, -1), symmetric)
        return block.reshape(n, r, m, s)
    if pairing == "sum":
        return product(ours.reshape(n, -1), theirs.reshape(m, -1), symmetric)

    def draw(d: Array) -> Array:
        one, other = (
            jax.lax.dynamic_index_in_dim(side, d, 1, keepdims=False) for side in (ours, theirs)
        )
        return product(one, other, symmetric)

    # One draw after the other: a batched product would first copy both sides whole.
    return jax.lax.map(draw, jnp.arange(r))


def flat(factor: Rows) -> Array:
    return factor.value.reshape(*factor.value.shape[:2], -1)


def product(left: Array, right: Array, symmetric: bool = False) -> Array:
    """``left @ right.T`` in full precision; one triangle of blocks if both are the same."""
    size = left.shape[0]
    blocks = min(4, size // HALVED_FROM) if symmetric else 1
    if blocks <= 1:
        return _dot(left, right)
    edges = [size * k // blocks for k in range(blocks + 1)]
    pieces = []
    for start, stop in itertools.pairwise(edges):
        below = _dot(left[start:stop], right[:stop])
        pieces.append(jnp.pad(below, ((0, 0), (0, size - stop))))
    lower = jnp.concatenate(pieces)
    block = jnp.searchsorted(jnp.asarray(edges[1:-1]), jnp.arange(size), side="right")
    return jnp.where(block[:, None] >= block[None, :], lower, lower.T)


def _dot(left: Array, right: Array) -> Array:
    axes = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, precision=jax.lax.Precision.HIGHEST)


# --- a piece at a time ------------------------------------------------------------------------


def contract_formed(pairing: str, left: Formed, right: Formed, symmetric: bool) -> Array:
    """Inner products of rows of which only a piece exists at a time."""
    pieces, cut = _pieces(left)
    ours = cut(left)
    theirs = ours if symmetric else cut(right)

    def part(k: Array | int) -> Array:
        mine = ours(k)
        return _contract_written(pairing, mine, mine if symmetric else theirs(k), symmetric)

    if pieces == 1:
        return part(0)
    # The first one outside the loop says which shape the others add up to.
    return loop(1, pieces, lambda k, total: total + part(k), part(0), unroll=False)


def formed_norms(factor: Formed) -> Array:
    """``(n, r)`` squared norms of the rows."""
    pieces, cut = _pieces(factor)
    rows = cut(factor)

    def part(k: Array | int) -> Array:
        return jnp.sum(rows(k) ** 2, -1)

    return loop(1, pieces, lambda k, total: total + part(k), part(0), unroll=False)


Piece = Callable[[Array | int], Array]


def _pieces(factor: Formed) -> tuple[int, Callable[[Formed], Piece]]:
    """How many pieces, and what makes the pieces ``(n, r, w)`` of a factor."""
    n, r, b, _, e = factor.right.shape
    d = factor.left.shape[-1]
    needed = -(-n * r * b * e * d * factor.right.dtype.itemsize // factor.piece)
    by_left, by_right = (_divisor(width, needed) for width in (d, e))
    if by_left <= by_right:
        return by_left, lambda f: _rows_by_left(f, d // by_left)
    return by_right, lambda f: _rows_by_right(f, e // by_right)


def _divisor(width: int, least: int) -> int:
    """Smallest number of equal parts of an axis that is at least so large."""
    return next((k for k in range(min(least, width), width) if width % k == 0), width)


def _rows_by_left(factor: Formed, size: int) -> Piece:
    n, r, b, t, e = factor.right.shape
    # Positions last, once: else every product would move them there.
    right = factor.right.transpose(0, 2, 1, 4, 3).reshape(n, b, r * e, t)

    def rows(k: Array | int) -> Array:
        left = jax.lax.dynamic_slice_in_dim(factor.left, k * size, size, 3)
        return _multiplied(right, left, r)

    return rows


def _rows_by_right(factor: Formed, size: int) -> Piece:
    n, r, b, t, _ = factor.right.shape
    right = factor.right.transpose(0, 2, 1, 4, 3)

    def rows(k: Array | int) -> Array:
        part = jax.lax.dynamic_slice_in_dim(right, k * size, size, 3)
        return _multiplied(part.reshape(n, b, r * size, t), factor.left, r)

    return rows


def _multiplied(right: Array, left: Array, rows: int) -> Array:
    """Rows ``(n, r, w)`` from ``(n, B, r e, T)`` and ``(n, B, T, d)``."""
    n, b, width, _ = right.shape
    axes = (((3,), (2,)), ((0, 1), (0, 1)))
    formed = jax.lax.dot_general(right, left, axes, precision=jax.lax.Precision.HIGHEST)
    formed = formed.reshape(n, b, rows, width // rows, -1)
    return jnp.swapaxes(formed, 1, 2).reshape(n, rows, -1)
