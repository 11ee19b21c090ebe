"""What a user can get wrong, and pools that are hard to pick from."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import errors
from ntkstats import selection as sel
from tests.selection.systems import KEY, RND, SELECTORS, N, apply, init, picks, pool, table

POOL = pool()
X = table()[0][:N]


def with_nan():
    x = X.copy()
    x[[3, 7], 1] = np.nan
    return x


TABLE = [
    (sel.MaxDet, POOL, 2, {}, "expected a selector such as selection.MaxDet()"),
    (sel.MaxDet(), X, 2, {}, "expected selection.Pool(x=..., kernel=...)"),
    (sel.MaxDet(), POOL, -1, {}, "k=-1; expected an integer of at least 0"),
    (sel.MaxDet(), POOL, 2.5, {}, "k=2.5; expected an integer"),
    (sel.MaxDet(), POOL, N + 1, {}, f"the pool has {N} samples that are not selected"),
    (sel.MaxDet(), POOL, 3, {"candidates": [1, 2]}, "candidates has 2 samples that are not"),
    (sel.MaxDet(), POOL, 1, {"candidates": np.zeros(N, bool)}, "candidates has 0 samples"),
    (sel.MaxDet(), POOL, 2, {"candidates": [1, 2], "selected": [2]}, "expected k of at most 1"),
    (sel.MaxDet(), POOL, 2, {"candidates": [0.5]}, "candidates has shape (1,) and dtype float64"),
    (sel.MaxDet(), POOL, 2, {"candidates": np.ones(3, bool)}, "a mask of shape (3,)"),
    (sel.MaxDet(), POOL, 2, {"selected": [N]}, f"holds indices from {N} to {N}; expected 0"),
    (sel.MaxDet(), POOL, 2, {"selected": [2, -1]}, "Leave out the -1 of a selection"),
    (sel.MaxDet(), POOL, 2, {"selected": [2, 2]}, "selected holds an index twice"),
    (sel.MaxDet(), POOL, 2, {"batch": 0}, "batch=0; expected an integer of at least 1"),
    (sel.MaxDet(), POOL, 2, {"tol": 1.5}, "tol=1.5; expected a share of the first score"),
    (sel.MaxDet(), sel.Pool(x=X), 2, {}, "MaxDet was given a pool without kernel"),
    (sel.Stratified(), sel.Pool(x=X), 2, {}, "Stratified was given a pool without y"),
    (sel.ClusterStratified(), sel.Pool(x=X), 2, {}, "a pool without clusters"),
    (sel.Random(), sel.Pool(), 2, {}, "expected one number of samples, at least 1"),
    (sel.Random(), sel.Pool(x=np.zeros((0, 3))), 0, {}, "expected one number of samples"),
    (sel.Random(), sel.Pool(x=X, y=np.zeros(3, int)), 2, {}, "leading sizes"),
    (sel.Random(), sel.Pool(x=np.float32(1)), 1, {}, "holds a scalar"),
    (sel.Random(), sel.Pool(kernel=np.eye(3)), 1, {}, "selection.dense(matrix) for a matrix"),
    (RND, sel.Pool(x=with_nan()), 2, {}, "has 2 rows with entries that are not finite, the first "),
    (sel.MaxDet(), sel.Pool(kernel=sel.linear(with_nan())), 2, {}, "the first at 3"),
    (sel.Stratified(), sel.Pool(y=np.eye(3)), 2, {}, "expected one integer a sample"),
    (sel.Stratified(balance="fair"), POOL, 2, {}, "balance='fair'; expected one of"),
    (sel.PerClass(sel.KMedoids()), POOL, 2, {}, "expected a selector that picks one sample"),
    (sel.ByBatch(sel.MaxDet(), size=0), POOL, 2, {}, "size=0; expected at least 1"),
    (sel.MaxDet(noise=-1.0), POOL, 2, {}, "noise=-1.0; expected a number that is not"),
    (sel.FarthestPoint(first="last"), POOL, 2, {}, "first='last'; expected one of"),
    (sel.RNDLimit(noise_dof=0), POOL, 2, {}, "noise_dof=0; expected a positive integer"),
    (sel.MaxEntropy(draws=0), POOL, 2, {}, "draws=0; expected at least 1"),
    (sel.KMedoids(iterations=-1), POOL, 2, {}, "iterations=-1; expected 0 or more"),
    (sel.FacilityLocation(references=0), POOL, 2, {}, "references=0; expected at least 1"),
    (sel.MaxNorm(of="output"), POOL, 2, {}, "of='output'; expected 'kernel' or 'inputs'"),
    (sel.EL2N(init, apply, keep="all"), POOL, 2, {}, "keep='all'; expected one of"),
    (sel.EL2N(init, apply, members=0), POOL, 2, {}, "members=0; expected at least 1"),
    (sel.RND(init, apply, combine="sum"), POOL, 2, {}, "combine='sum'; expected one of"),
    (sel.RND(init, apply, pairs=0), POOL, 2, {}, "pairs=0; expected at least 1"),
    (RND, sel.Pool(x=X), 4, {"batch": 2}, "lookahead='kernel' and a pool without kernel"),
]


@pytest.mark.parametrize(("selector", "data", "k", "options", "message"), TABLE)
def test_is_refused_with_a_message(selector, data, k, options, message):
    with pytest.raises(errors.SelectionError, match=re.escape(message)):
        sel.select(selector, KEY, data, k, **options)


def test_keys_and_precisions_that_are_none():
    with pytest.raises(errors.SelectionError, match="expected one PRNG key"):
        sel.select(sel.MaxDet(), jax.random.split(KEY, 2), POOL, 2)
    with pytest.raises(errors.SelectionError, match="expected one PRNG key"):
        sel.select(sel.MaxDet(), 0, POOL, 2)
    with pytest.raises(errors.PrecisionError, match="expected None or 'float64'"):
        sel.select(sel.MaxDet(), KEY, POOL, 2, precision="half")
    with pytest.raises(errors.PrecisionError, match="inside a function that JAX is tracing"):
        jax.jit(lambda key: sel.select(sel.MaxDet(), key, POOL, 2, precision="float64"))(KEY)
    with pytest.raises(errors.SelectionError, match="a mask inside a trace"):
        jax.jit(lambda m: sel.select(sel.MaxDet(), KEY, POOL, 2, selected=m))(np.ones(N, bool))


def test_kernels_that_are_none():
    with pytest.raises(errors.SelectionError, match="expected a square matrix"):
        sel.dense(np.ones((3, 2)))
    with pytest.raises(errors.SelectionError, match="all of one size"):
        sel.mean_kernel([sel.linear(X), sel.linear(X[:3])])
    with pytest.raises(errors.SelectionError, match="all of one size"):
        sel.mean_kernel([])


EMPTY = ("random", "maxdet", "rnd", "kmedoids", "entropy", "lcmd")


@pytest.mark.parametrize(
    "name", [n if n in EMPTY else pytest.param(n, marks=pytest.mark.slow) for n in SELECTORS]
)
def test_no_picks_are_an_empty_selection(name):
    found = sel.select(SELECTORS[name], KEY, POOL, 0)
    assert found.indices.shape == found.scores.shape == (0,)
    assert int(found.count) == 0
    empty = np.zeros(N, bool)
    assert sel.select(SELECTORS[name], KEY, POOL, 0, candidates=empty).indices.shape == (0,)


@pytest.mark.parametrize(
    "selector",
    [sel.MaxDet(), sel.FarthestPoint(), sel.RNDLimit()],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("kind", ["features", "matrix", "rank_deficient"])
def test_copies_come_after_all_distinct_samples(selector, kind):
    x = table()[0][:12]
    if kind == "rank_deficient":  # more distinct samples than dimensions
        x = x[:, :3]
    doubled = np.concatenate([x, x, x])[np.random.default_rng(1).permutation(36)]
    kernel = sel.linear(doubled)
    if kind == "matrix":
        gram = np.exp(-((doubled[:, None] - doubled[None]) ** 2).sum(-1) / 50)
        kernel = sel.dense(gram)
    chosen = picks(selector, sel.Pool(kernel=kernel), 36)
    assert np.unique(doubled[chosen[:12]], axis=0).shape[0] == 12
    assert sorted(chosen.tolist()) == list(range(36))


def test_one_class_is_no_trouble():
    one = POOL._replace(y=jnp.zeros(N, jnp.int32), clusters=jnp.full(N, 7))
    for selector in (sel.Stratified(), sel.ClusterStratified(), sel.PerClass(sel.MaxDet())):
        assert len(set(picks(selector, one, 9).tolist())) == 9
    assert (
        picks(sel.PerClass(sel.MaxDet()), one, 9).tolist() == picks(sel.MaxDet(), one, 9).tolist()
    )


def test_noise_is_never_picked_and_the_count_says_when_clusters_are_empty():
    noisy = POOL._replace(clusters=jnp.asarray([0] * 5 + [-1] * (N - 5)))
    found = sel.select(sel.ClusterStratified(), KEY, noisy, 9)
    assert int(found.count) == 5
    assert sorted(found.indices[:5].tolist()) == list(range(5))
    assert (found.indices[5:] == -1).all()


def test_a_constant_kernel_is_picked_from_in_order():
    flat = sel.Pool(kernel=sel.dense(np.ones((6, 6), np.float32)))
    for selector in (sel.MaxDet(), sel.FarthestPoint(), sel.LCMD(), sel.MeanVariance()):
        found = sel.select(selector, KEY, flat, 6)
        assert found.indices.tolist() == list(range(6))
        assert np.isfinite(found.scores).all()
    zero = sel.Pool(kernel=sel.normalised(sel.linear(np.zeros((4, 2)))))
    assert picks(sel.MaxRenyi2(), zero, 4).tolist() == [0, 1, 2, 3]
