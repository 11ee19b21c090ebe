"""Rows that are formed by pieces, of which one triangle of blocks is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.kernels.contraction._contraction import contract
from ntkstats.kernels.contraction._factors import Formed
from ntkstats.kernels.contraction._rows import written
from ntkstats.kernels.contraction._triangle import assembled, groups, mirrored

SPECS = {"all": "nrx,msx->nrms", "sum": "nrx,mrx->nm", "each": "nrx,mrx->rnm"}
PAIRINGS = list(SPECS)


def factor(n, r, batch=2, positions=3, left=5, right=6, piece=2**30):
    rng = np.random.default_rng(n + r)
    ours = rng.normal(size=(n, batch, positions, left)).astype(np.float32)
    theirs = rng.normal(size=(n, r, batch, right, positions)).astype(np.float32)
    return Formed(0, jnp.asarray(ours), jnp.asarray(theirs), piece)


def rows_of(formed):
    rows = np.einsum("nbtd,nrbet->nrbed", *map(np.float64, (formed.left, formed.right)))
    return rows.reshape(*rows.shape[:2], -1)


def error(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("n", "count"), [(1, 1), (7, 1), (97, 2), (163, 4)])
@pytest.mark.parametrize("pieces", [1, 4])
def test_block_of_a_tile_with_itself(pairing, n, count, pieces):
    r = 2 if pairing != "all" or n < 40 else 1
    one = factor(n, r)
    assert len(groups(pairing, n, r)) == count
    tile = [one._replace(piece=rows_of(one).astype(np.float32).nbytes // pieces)]
    block, diagonals = jax.jit(lambda: contract(pairing, [[0]], tile, tile, symmetric=True))()
    rows = rows_of(one)
    expected = np.einsum(SPECS[pairing], rows, rows)
    assert error(block, expected) <= 1e-6
    assert error(block, np.asarray(mirrored(pairing, block))) <= 1e-6
    assert error(diagonals[0], (rows**2).reshape(n, -1).sum(-1)) <= 1e-6


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_block_of_two_tiles_one_of_which_is_written_out(pairing):
    one, other = factor(9, 2), factor(11, 2)
    assert error(written(other).value.reshape(11, 2, -1), rows_of(other)) <= 1e-6
    expected = np.einsum(SPECS[pairing], rows_of(one), rows_of(other))
    for left in (one, written(one)):
        for right in (other, written(other)):
            block, _ = contract(pairing, [[0]], [left], [right])
            assert error(block, expected) <= 1e-6


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_whole_from_its_lower_blocks(pairing):
    rows = np.random.default_rng(0).normal(size=(5, 2, 4))
    whole = np.einsum(SPECS[pairing], rows, rows)
    down, across = {"all": (0, 2), "sum": (0, 1), "each": (1, 2)}[pairing]
    parts = [slice(0, 2), slice(2, 3), slice(3, 5)]

    def block(i, j):
        index = [slice(None)] * whole.ndim
        index[down], index[across] = parts[i], parts[j]
        return jnp.asarray(whole[tuple(index)])

    lower = [[block(i, j) for j in range(i + 1)] for i in range(3)]
    np.testing.assert_allclose(assembled(pairing, lower), whole, rtol=1e-6)


@pytest.mark.parametrize(("n", "r"), [(1, 1), (3, 100), (50, 10), (1000, 1)])
def test_groups_are_all_samples_in_order(n, r):
    found = groups("all", n, r)
    assert np.concatenate([np.arange(n)[group] for group in found]).tolist() == list(range(n))
