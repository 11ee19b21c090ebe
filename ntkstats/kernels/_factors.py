"""Tiles of Jacobian rows, written out or as factors, and their inner products.

A tile has n samples with r rows each. The part of one parameter array in it is either written out
(`Rows`), or kept as the operands of the product it would be (`Outer`): with
``J = sum_t right_t left_t^T`` the inner product of two rows is
``sum_{t,u} (left_t . left_u) (right_t . right_u)``, which needs no row at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ntkstats._lanes import after
from ntkstats.typing import Array

# Entries that one piece of a factored contraction may hold (64 MiB in float32).
SCRATCH = 2**24
# Entries of a kernel from which factors are contracted strictly one after the other.
ONE_AFTER_THE_OTHER_FROM = 2**14
# Rows a block from which a product of a matrix with itself is worth computing by halves: thinner
# products run so much slower that nothing is gained.
HALVED_FROM = 256


class Rows(NamedTuple):
    """Rows written out.

    Attributes
    ----------
    leaf
        Position of the parameter array.
    value
        ``(n, r, *shape)``.
    """

    leaf: int
    value: Array


class Outer(NamedTuple):
    """Rows as sums of outer products.

    Attributes
    ----------
    leaf
        Position of the parameter array.
    bias
        Position of a bias that is added to the product, whose rows are ``right`` itself; None
        without. Only where T = B = 1.
    left
        ``(n, B, T, d)``, the same for all rows of a sample; or ``(n, B, T)`` indices of one-hot
        vectors (negative ones count for nothing).
    right
        ``(n, r, B, T, e)``.
    """

    leaf: int
    bias: int | None
    left: Array
    right: Array

    @property
    def simple(self) -> bool:
        """Whether there is nothing to sum over: B = T = 1."""
        return self.right.shape[2] * self.right.shape[3] == 1


Factor: TypeAlias = Rows | Outer
Tile: TypeAlias = Sequence[Factor]


def is_wide(pairing: str, width: int, samples: int, rows: int) -> bool:
    """Whether an array of that many parameters is wider than its tile of rows is long.

    The matrix product of a narrow one would write more than it reads, so narrow ones are
    contracted together.
    """
    if pairing == "sum":
        return rows * width >= samples
    return width >= samples * (rows if pairing == "all" else 1)


def grouped(pairing: str, tile: Tile) -> list[list[int]]:
    """Positions of the factors that are contracted together: narrow rows as one."""
    alone: list[int] = []
    narrow: list[int] = []
    for position, factor in enumerate(tile):
        if isinstance(factor, Rows):
            samples, rows, *shape = factor.value.shape
            if not is_wide(pairing, math.prod(shape), samples, rows):
                narrow.append(position)
                continue
        alone.append(position)
    return [[position] for position in alone] + ([narrow] if narrow else [])


def contract(
    pairing: str,
    groups: list[list[int]],
    left: Tile,
    right: Tile,
    *,
    symmetric: bool = False,
) -> tuple[Array, dict[int, Array]]:
    """Inner products of two tiles, all factors together.

    Parameters
    ----------
    pairing
        ``"all"``, ``"sum"`` or ``"each"``.
    groups
        From `grouped`.
    left, right
        The tiles.
    symmetric
        They are the same tile.

    Returns
    -------
    block
        ``(n, r, m, s)`` for ``"all"``, ``(n, m)`` for ``"sum"``, ``(r, n, m)`` for ``"each"``.
    diagonals
        ``{leaf: (n,)}`` parts of the parameter arrays in the diagonal of a symmetric block.
    """
    total: Array | None = None
    diagonals: dict[int, Array] = {}
    for group in groups:
        factor, other = left[group[0]], right[group[0]]
        if isinstance(factor, Outer):
            if total is not None and total.size >= ONE_AFTER_THE_OTHER_FROM:
                # Else the compiler computes the blocks of all factors before it adds them up.
                factor = factor._replace(right=factor.right + after(total))
            block = _contract_outer(pairing, factor, other, symmetric)
        else:
            ours, theirs = ([side[p] for p in group] for side in (left, right))
            block = _contract_rows(pairing, ours, theirs, symmetric)
        if symmetric:
            diagonals |= _leaf_diagonals(pairing, [left[p] for p in group], block)
        total = block if total is None else total + block
    assert total is not None
    return total, diagonals


# --- rows -------------------------------------------------------------------------------------


def _contract_rows(pairing: str, left: Tile, right: Tile, symmetric: bool) -> Array:
    ours, theirs = (
        jnp.concatenate([_flat(factor) for factor in side], -1) for side in (left, right)
    )
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


def _flat(factor: Factor) -> Array:
    assert isinstance(factor, Rows)
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


# --- factors ----------------------------------------------------------------------------------


def _contract_outer(pairing: str, left: Factor, right: Factor, symmetric: bool) -> Array:
    assert isinstance(left, Outer)
    assert isinstance(right, Outer)
    if left.simple:
        return _contract_simple(pairing, left, right, symmetric)
    n, _, b, t, e = left.right.shape
    m, s, _, u, _ = right.right.shape
    # The samples of the right side are taken in pieces, so that what is in between stays small.
    between = n * b * t * ((u + s * e) if pairing == "all" else 3 * u)
    piece = max(1, min(m, SCRATCH // max(between, 1)))
    compute = {"all": _pairs_all, "sum": _pairs_sum, "each": _pairs_each}[pairing]
    axis = {"all": 2, "sum": 1, "each": 2}[pairing]
    if piece >= m:
        return compute(left, right)
    count = -(-m // piece)
    piece = -(-m // count)

    def part(k: Array) -> Array:
        start = jnp.minimum(k * piece, m - piece)
        sides = (jax.lax.dynamic_slice_in_dim(a, start, piece) for a in (right.left, right.right))
        return compute(left, Outer(right.leaf, None, *sides))

    parts = jnp.moveaxis(jax.lax.map(part, jnp.arange(count)), 0, axis)
    # Pieces overlap when m is no multiple; what is repeated is dropped.
    flat = parts.reshape(*parts.shape[:axis], count * piece, *parts.shape[axis + 2 :])
    repeated = count * piece - m
    head = jax.lax.slice_in_dim(flat, 0, m - piece, axis=axis)
    tail = jax.lax.slice_in_dim(flat, m - piece + repeated, count * piece, axis=axis)
    return jnp.concatenate([head, tail], axis)


def _contract_simple(pairing: str, left: Outer, right: Outer, symmetric: bool) -> Array:
    n, r = left.right.shape[:2]
    m, s = right.right.shape[:2]
    shared = _similarity(left.left, right.left).reshape(n, m)
    if left.bias is not None:
        shared = shared + 1
    if pairing == "all":
        block = product(
            left.right.reshape(n * r, -1), right.right.reshape(m * s, -1), symmetric
        ).reshape(n, r, m, s)
        return shared[:, None, :, None] * block
    if pairing == "sum":
        block = product(left.right.reshape(n, -1), right.right.reshape(m, -1), symmetric)
        return shared * block
    ours, theirs = left.right.reshape(n, r, -1), right.right.reshape(m, s, -1)
    return shared * _einsum("nre,mre->rnm", ours, theirs)


def _similarity(left: Array, right: Array) -> Array:
    """``(B, n, t, m, u)`` inner products of the shared factors."""
    if jnp.issubdtype(left.dtype, jnp.integer):
        ours, theirs = jnp.swapaxes(left, 0, 1), jnp.swapaxes(right, 0, 1)
        equal = ours[:, :, :, None, None] == theirs[:, None, None, :, :]
        return (equal & (ours >= 0)[:, :, :, None, None]).astype(jnp.float32)
    return _einsum("nbtd,mbud->bntmu", left, right)


def _pairs_all(left: Outer, right: Outer) -> Array:
    """One side is projected on the other's shared factors first: T^2 once, not for all rows."""
    shared = _similarity(left.left, right.left).astype(right.right.dtype)
    projected = _einsum("bntmu,msbue->nbtems", shared, right.right)
    return _einsum("nrbte,nbtems->nrms", left.right, projected)


def _pairs_sum(left: Outer, right: Outer) -> Array:
    shared = _similarity(left.left, right.left)
    return (shared * _einsum("nrbte,mrbue->bntmu", left.right, right.right)).sum((0, 2, 4))


def _pairs_each(left: Outer, right: Outer) -> Array:
    shared = _similarity(left.left, right.left)

    def draw(d: Array) -> Array:
        one, other = (
            jax.lax.dynamic_index_in_dim(side.right, d, 1, keepdims=False) for side in (left, right)
        )
        return (shared * _einsum("nbte,mbue->bntmu", one, other)).sum((0, 2, 4))

    return jax.lax.map(draw, jnp.arange(left.right.shape[1]))


def _einsum(spec: str, *operands: Array) -> Array:
    return jnp.einsum(spec, *operands, precision=jax.lax.Precision.HIGHEST)


# --- diagonals --------------------------------------------------------------------------------


def squared_norms(factor: Factor) -> dict[int, Array]:
    """``{leaf: (n, r)}`` squared norms of the rows."""
    if isinstance(factor, Rows):
        return {factor.leaf: jnp.sum(_flat(factor) ** 2, axis=-1)}
    n, r, _, _, e = factor.right.shape
    if factor.simple:
        own = jnp.sum(factor.right.reshape(n, r, e) ** 2, -1)
        one_hot = jnp.issubdtype(factor.left.dtype, jnp.integer)
        flat = factor.left.reshape(n, -1)
        shared = (flat >= 0).astype(own.dtype) if one_hot else flat**2
        norms = {factor.leaf: shared.sum(-1)[:, None] * own}
        return norms if factor.bias is None else norms | {factor.bias: own}
    shared = jax.vmap(lambda left: _similarity(left[None], left[None])[:, 0, :, 0])(factor.left)
    pairs = _einsum("nrbte,nrbue->nrbtu", factor.right, factor.right)
    return {factor.leaf: (shared[:, None] * pairs).sum((2, 3, 4))}


def _leaf_diagonals(pairing: str, group: Tile, block: Array) -> dict[int, Array]:
    """``{leaf: (n,)}`` parts in the diagonal of the block of one group with itself.

    What stands alone is read off its block; nothing is computed again.
    """
    first = group[0]
    if len(group) == 1 and (isinstance(first, Rows) or first.bias is None):
        spec = {"all": "nrnr->n", "sum": "nn->n", "each": "rnn->n"}[pairing]
        return {first.leaf: jnp.einsum(spec, block)}
    norms = [squared_norms(factor) for factor in group]
    return {leaf: part.sum(1) for parts in norms for leaf, part in parts.items()}


def mirrored(pairing: str, block: Array) -> Array:
    """The block on the other side of the diagonal."""
    return block.transpose(2, 3, 0, 1) if pairing == "all" else jnp.swapaxes(block, -1, -2)
