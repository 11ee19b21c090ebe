"""One triangle of a symmetric block: parts between groups of samples, and their mirror images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ntkstats.typing import Array

# Rows a group from which a triangle is worth the thinner products: measured on CPU, a guess on GPU.
ROWS_FROM = {"cpu": 40}
ROWS_FROM_ELSEWHERE = 512
# More would save little: four leave 10 of 16 blocks, and half is the least.
MOST_GROUPS = 4

# Where a block has the samples of its two sides.
_SIDES = {"all": (0, 2), "sum": (0, 1), "each": (1, 2)}


def groups(pairing: str, samples: int, rows: int) -> list[slice]:
    """Samples in groups of about equal size."""
    together = samples * (rows if pairing == "all" else 1)
    least = ROWS_FROM.get(jax.default_backend(), ROWS_FROM_ELSEWHERE)
    count = max(1, min(MOST_GROUPS, samples, together // least))
    edges = [samples * k // count for k in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def mirrored(pairing: str, block: Array) -> Array:
    """The block on the other side of the diagonal."""
    return block.transpose(2, 3, 0, 1) if pairing == "all" else jnp.swapaxes(block, -1, -2)


def assembled(pairing: str, blocks: Sequence[Sequence[Array]]) -> Array:
    """The whole block from its lower triangle, one list of blocks for each group."""
    down, across = _SIDES[pairing]
    count = len(blocks)
    full = [
        [blocks[i][j] if j <= i else mirrored(pairing, blocks[j][i]) for j in range(count)]
        for i in range(count)
    ]
    return jnp.concatenate([jnp.concatenate(line, across) for line in full], down)
