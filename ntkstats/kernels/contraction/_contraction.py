"""Inner products of tiles: every factor in its own way, and what they add up to."""

from __future__ import annotations

import math

import jax.numpy as jnp

from ntkstats._lanes import after
from ntkstats.kernels.contraction._factors import Factor, Formed, Outer, Rows, Tile
from ntkstats.kernels.contraction._outer import contract_outer, outer_diagonals, outer_norms
from ntkstats.kernels.contraction._rows import (
    contract_formed,
    contract_rows,
    flat,
    formed_norms,
    is_wide,
    written,
)
from ntkstats.typing import Array

# Entries of a kernel from which factors are contracted strictly one after the other.
ONE_AFTER_THE_OTHER_FROM = 2**14


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
        if isinstance(factor, Outer) and isinstance(other, Outer):
            if total is not None and total.size >= ONE_AFTER_THE_OTHER_FROM:
                # Else the compiler computes the blocks of all factors before it adds them up.
                factor = factor._replace(right=factor.right + after(total))
            block = contract_outer(pairing, factor, other, symmetric)
        elif isinstance(factor, Formed) and isinstance(other, Formed):
            block = contract_formed(pairing, factor, other, symmetric)
        else:
            ours, theirs = (_rows(side, group) for side in (left, right))
            block = contract_rows(pairing, ours, theirs, symmetric)
        if symmetric:
            diagonals |= _leaf_diagonals(pairing, [left[p] for p in group], block)
        total = block if total is None else total + block
    assert total is not None
    return total, diagonals


def _rows(tile: Tile, group: list[int]) -> list[Rows]:
    # Sequences of other lengths can make the other side write out what this one forms by pieces.
    factors = [tile[position] for position in group]
    rows = [written(factor) if isinstance(factor, Formed) else factor for factor in factors]
    found = [factor for factor in rows if isinstance(factor, Rows)]
    assert len(found) == len(factors), "the two tiles are written in different ways"
    return found


def squared_norms(factor: Factor) -> dict[int, Array]:
    """``{leaf: (n, r)}`` squared norms of the rows."""
    if isinstance(factor, Rows):
        return {factor.leaf: jnp.sum(flat(factor) ** 2, axis=-1)}
    if isinstance(factor, Formed):
        return {factor.leaf: formed_norms(factor)}
    return outer_norms(factor)


def _leaf_diagonals(pairing: str, group: Tile, block: Array) -> dict[int, Array]:
    """``{leaf: (n,)}`` parts in the diagonal of the block of one group with itself.

    What stands alone is read off its block; nothing is computed again.
    """
    first = group[0]
    if len(group) == 1:
        spec = {"all": "nrnr->n", "sum": "nn->n", "each": "rnn->n"}[pairing]
        diagonal = jnp.einsum(spec, block)
        if isinstance(first, Outer):
            return outer_diagonals(first, diagonal)
        return {first.leaf: diagonal}
    norms = [squared_norms(factor) for factor in group]
    return {leaf: part.sum(1) for parts in norms for leaf, part in parts.items()}
