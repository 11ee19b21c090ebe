"""Inner products of rows that are written out, at once or a piece at a time."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp

from ntkstats._lanes import loop
from ntkstats.kernels.contraction._factors import Formed, Rows
from ntkstats.kernels.contraction._triangle import assembled, groups
from ntkstats.typing import Array

T = TypeVar("T")

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
    if symmetric:
        n, r = left.right.shape[:2]
        # Cut before rows are formed: slices of what is formed would be copies.
        sides = [cut(_samples(left, group)) for group in groups(pairing, n, r)]
        blocks = _added_up(pieces, lambda k: _lower(pairing, [rows(k) for rows in sides]))
        return assembled(pairing, blocks)
    ours, theirs = cut(left), cut(right)
    return _added_up(pieces, lambda k: _contract_written(pairing, ours(k), theirs(k), False))


def _samples(factor: Formed, group: slice) -> Formed:
    return factor._replace(left=factor.left[group], right=factor.right[group])


def _lower(pairing: str, sides: Sequence[Array]) -> list[list[Array]]:
    """Blocks of the lower triangle."""
    return [
        [_contract_written(pairing, sides[i], sides[j], i == j) for j in range(i + 1)]
        for i in range(len(sides))
    ]


def _added_up(pieces: int, part: Callable[[Array | int], T]) -> T:
    """Sum of all parts, one after the other."""

    def add(k: Array | int, total: T) -> T:
        return jax.tree.map(operator.add, total, part(k))

    # The first one outside the loop says which shapes the others add up to.
    first = part(0)
    return first if pieces == 1 else loop(1, pieces, add, first, unroll=False)


def written(factor: Formed) -> Rows:
    """The rows, all at once."""
    return Rows(factor.leaf, _rows_by_left(factor, factor.left.shape[-1])(0))


def formed_norms(factor: Formed) -> Array:
    """``(n, r)`` squared norms of the rows."""
    pieces, cut = _pieces(factor)
    rows = cut(factor)

    def part(k: Array | int) -> Array:
        return jnp.sum(rows(k) ** 2, -1)

    return _added_up(pieces, part)


Piece = Callable[[Array | int], Array]


def _pieces(factor: Formed) -> tuple[int, Callable[[Formed], Piece]]:
    """How many pieces, and what makes the pieces ``(n, r, w)`` of a factor."""
    n, r, b, e, _ = factor.right.shape
    d = factor.left.shape[-1]
    needed = -(-n * r * b * e * d * factor.right.dtype.itemsize // factor.piece)
    # The wider operand is cut: products with a narrow one are slower than their operations say.
    if d >= e:
        by_left = _divisor(d, needed)
        return by_left, lambda f: _rows_by_left(f, d // by_left)
    by_right = _divisor(e, needed)
    return by_right, lambda f: _rows_by_right(f, e // by_right)


def _divisor(width: int, least: int) -> int:
    """Smallest number of equal parts of an axis that is at least so large."""
    return next((k for k in range(min(least, width), width) if width % k == 0), width)


def _rows_by_left(factor: Formed, size: int) -> Piece:
    n, r, b, e, t = factor.right.shape
    right = factor.right.swapaxes(1, 2).reshape(n, b, r * e, t)

    def rows(k: Array | int) -> Array:
        left = jax.lax.dynamic_slice_in_dim(factor.left, k * size, size, 3)
        return _multiplied(right, left, r)

    return rows


def _rows_by_right(factor: Formed, size: int) -> Piece:
    n, r, b, _, t = factor.right.shape
    right = factor.right.swapaxes(1, 2)

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
