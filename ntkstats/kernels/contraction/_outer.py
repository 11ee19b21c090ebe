"""Inner products of rows that stay factors."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ntkstats.kernels.contraction._factors import Outer
from ntkstats.kernels.contraction._rows import product
from ntkstats.typing import Array

# Entries that one piece of a factored contraction may hold (64 MiB in float32).
SCRATCH = 2**24


def contract_outer(pairing: str, left: Outer, right: Outer, symmetric: bool) -> Array:
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


def outer_norms(factor: Outer) -> dict[int, Array]:
    """``{leaf: (n, r)}`` squared norms of the rows."""
    n, r, _, _, e = factor.right.shape
    if factor.simple:
        own = jnp.sum(factor.right.reshape(n, r, e) ** 2, -1)
        norms = {factor.leaf: _shared_norms(factor)[:, None] * own}
        return norms if factor.bias is None else norms | {factor.bias: own}
    shared = jax.vmap(lambda left: _similarity(left[None], left[None])[:, 0, :, 0])(factor.left)
    pairs = _einsum("nrbte,nrbue->nrbtu", factor.right, factor.right)
    return {factor.leaf: (shared[:, None] * pairs).sum((2, 3, 4))}


def outer_diagonals(factor: Outer, diagonal: Array) -> dict[int, Array]:
    """Parts of weight and bias in the diagonal ``(n,)`` of the block of a factor with itself.

    The diagonal is ``(|left|^2 + 1) |right|^2`` with a bias: the long sum is in it already.
    """
    if factor.bias is None:
        return {factor.leaf: diagonal}
    shared = _shared_norms(factor)
    own = diagonal / (shared + 1)
    return {factor.leaf: shared * own, factor.bias: own}


def _shared_norms(factor: Outer) -> Array:
    """``(n,)`` squared norms of the shared factors where T = B = 1."""
    flat = factor.left.reshape(factor.left.shape[0], -1)
    one_hot = jnp.issubdtype(flat.dtype, jnp.integer)
    norms = (flat >= 0).astype(jnp.float32) if one_hot else flat**2
    return norms.sum(-1)
