"""Inner products of Jacobian rows, leaf by leaf."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ntkstats.typing import Array, PyTree


def is_wide(pairing: str, width: int, samples: int, rows: int) -> bool:
    """Whether a leaf of that many parameters is wider than its tile of rows is long.

    The matrix product of a narrow leaf would write more than it reads, so narrow leaves are
    contracted together.
    """
    if pairing == "sum":
        return rows * width >= samples
    return width >= samples * (rows if pairing == "all" else 1)


def leaf_groups(pairing: str, tile: PyTree) -> list[list[int]]:
    """Positions of the leaves that are contracted together: wide ones alone, narrow ones as one."""
    wide: list[int] = []
    narrow: list[int] = []
    for position, leaf in enumerate(jax.tree.leaves(tile)):
        samples, rows, *shape = leaf.shape
        alone = is_wide(pairing, math.prod(shape), samples, rows)
        (wide if alone else narrow).append(position)
    return [[position] for position in wide] + ([narrow] if narrow else [])


def contract(pairing: str, groups: list[list[int]], left: PyTree, right: PyTree) -> list[Array]:
    """Inner products of two tiles of rows, one block for each group of leaves.

    Returns
    -------
    list of Array
        ``(n, r, m, s)`` for ``"all"``, ``(n, m)`` for ``"sum"``, ``(r, n, m)`` for ``"each"``.
    """
    ours, theirs = _matrices(pairing, groups, left), _matrices(pairing, groups, right)
    if pairing == "each":

        def draw(d: Array) -> list[Array]:
            return list(map(_product, _column(ours, d), _column(theirs, d)))

        # One draw after the other: a batched product would first copy both sides whole.
        return jax.lax.map(draw, jnp.arange(ours[0].shape[1]))
    blocks = list(map(_product, ours, theirs))
    if pairing == "all":
        (n, r), (m, s) = (jax.tree.leaves(tile)[0].shape[:2] for tile in (left, right))
        return [block.reshape(n, r, m, s) for block in blocks]
    return blocks


def _product(left: Array, right: Array) -> Array:
    """``left @ right.T`` in full precision."""
    axes = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, precision=jax.lax.Precision.HIGHEST)


def _column(matrices: list[Array], d: Array) -> list[Array]:
    return [jax.lax.dynamic_index_in_dim(matrix, d, 1, keepdims=False) for matrix in matrices]


def _matrices(pairing: str, groups: list[list[int]], tile: PyTree) -> list[Array]:
    """Rows of each group, with as few axes as the pairing allows: then nothing is copied."""

    def flat(leaf: Array) -> Array:
        n, r = leaf.shape[:2]
        kept = {"all": (n * r,), "sum": (n,), "each": (n, r)}[pairing]
        return leaf.reshape(*kept, -1)

    leaves = [flat(leaf) for leaf in jax.tree.leaves(tile)]
    return [
        jnp.concatenate([leaves[p] for p in group], -1) if len(group) > 1 else leaves[group[0]]
        for group in groups
    ]


def squared_norms(rows: PyTree) -> Array:
    """``(leaf, n, r)`` squared norms of the rows, one entry for each parameter leaf."""
    leaves = [
        jnp.sum(leaf.reshape(*leaf.shape[:2], -1) ** 2, axis=-1) for leaf in jax.tree.leaves(rows)
    ]
    return jnp.stack(leaves)


def leaf_diagonals(
    pairing: str, groups: list[list[int]], tile: PyTree, blocks: list[Array]
) -> Array:
    """``(leaf, n)`` parts of the leaves in the diagonal of a tile's block with itself.

    A wide leaf's part is read off its own block; the rows are not touched again.
    """
    diagonals = {"all": "nrnr->n", "sum": "nn->n", "each": "rnn->n"}[pairing]
    leaves = jax.tree.leaves(tile)
    parts: dict[int, Array] = {}
    for group, block in zip(groups, blocks, strict=True):
        if len(group) == 1:
            parts[group[0]] = jnp.einsum(diagonals, block)
        else:
            for position in group:
                parts[position] = squared_norms(leaves[position])[0].sum(1)
    return jnp.stack([parts[position] for position in range(len(leaves))])


def mirrored(pairing: str, block: Array) -> Array:
    """The block on the other side of the diagonal."""
    return block.transpose(2, 3, 0, 1) if pairing == "all" else jnp.swapaxes(block, -1, -2)
