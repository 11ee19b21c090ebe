"""What every selector keeps, whatever it picks."""

import jax
import numpy as np
import pytest

from ntkstats import selection as sel
from tests.selection.systems import KEY, PICKS, SELECTORS, N, pool

POOL = pool()
VARIANTS = ("max_norm_inputs", "rnd_limit_noisy", "maxdet_randomised", "farthest_random")
VARIANTS += ("herding_warm", "el2n", "grad_norm")
# One of each kind of state; the battery runs over all of them among the slow tests.
KINDS = ("random", "maxdet", "rnd", "mean_variance", "lcmd", "kmedoids", "clusters", "per_class")


def over(fast):
    """Every selector, those that are not ``fast`` marked slow."""
    return pytest.mark.parametrize(
        "name", [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in SELECTORS]
    )


@pytest.fixture(scope="module")
def whole():
    """All N samples in the order of every selector; made once."""
    made = {}

    def run(name):
        if name not in made:
            made[name] = sel.select(SELECTORS[name], KEY, POOL, N)
        return made[name]

    return run


def order(found):
    return np.asarray(found.indices).tolist()


@over([name for name in SELECTORS if name not in VARIANTS])
def test_every_sample_is_picked_once_if_all_are_asked_for(name, whole):
    found = whole(name)
    assert sorted(order(found)) == list(range(N))
    assert int(found.count) == N
    assert np.isfinite(found.scores).all()
    if found.weights is not None:
        np.testing.assert_allclose(np.sum(found.weights), 1, rtol=1e-5)
    for value in found.aux.values():
        assert value.shape[0] == N


@over(KINDS)
def test_lanes_agree_with_runs_alone_and_prefixes_with_longer_runs(name, whole):
    selector = SELECTORS[name]
    keys = jax.numpy.stack([KEY, jax.random.key(11)])
    lanes = jax.vmap(lambda key: sel.select(selector, key, POOL, PICKS))(keys)
    alone = whole(name) if selector.nested else sel.select(selector, KEY, POOL, PICKS)
    assert lanes.indices[0].tolist() == order(alone)[:PICKS]
    np.testing.assert_allclose(lanes.scores[0], alone.scores[:PICKS], rtol=2e-4, atol=1e-5)
    differ = lanes.indices[0].tolist() != lanes.indices[1].tolist()
    assert differ <= selector.stochastic


@over(KINDS)
def test_what_is_selected_counts_and_only_candidates_are_picked(name, whole):
    selector = SELECTORS[name]
    before = order(whole(name))[:2]
    found = sel.select(selector, KEY, POOL, 7, selected=np.array(before))
    # A network that was trained after every pick differs from one that was trained once.
    if selector.nested and name != "rnd":
        assert order(found) == order(whole(name))[2:9]
    rest = [i for i in range(N - 1, -1, -1) if i not in before]
    candidates = np.array(rest[:7] + before[:1])  # the last row among them, and one overlap
    found = sel.select(selector, KEY, POOL, 7, selected=np.array(before), candidates=candidates)
    assert sorted(order(found)) == sorted(rest[:7])


@pytest.mark.parametrize(
    "name", [n for n, s in SELECTORS.items() if not s.stochastic and n != "clusters"]
)
def test_order_of_the_pool_does_not_matter(name, whole):
    permuted = np.random.default_rng(0).permutation(N)
    found = sel.select(SELECTORS[name], KEY, pool(rows=permuted), N)
    assert permuted[order(found)][:10].tolist() == order(whole(name))[:10]


@over([])
def test_float64_picks_the_same(name, whole):
    selector = SELECTORS[name]
    if name in ("rnd", "el2n", "grad_norm") or selector.stochastic:
        pytest.skip("random numbers differ between precisions")
    found = sel.select(selector, KEY, POOL, N, precision="float64")
    assert found.scores.dtype == np.float64
    assert order(found)[:PICKS] == order(whole(name))[:PICKS]
    np.testing.assert_allclose(found.scores[:PICKS], whole(name).scores[:PICKS], rtol=1e-3)


def test_tolerance_ends_the_picks_and_says_so(whole):
    free = whole("maxdet")
    ratio = np.asarray(free.scores / free.scores[0])
    found = sel.select(sel.MaxDet(), KEY, POOL, N, tol=0.5)
    stop = int((ratio > 0.5).sum())
    assert int(found.count) == stop < N
    assert order(found) == order(free)[:stop] + [-1] * (N - stop)
    assert np.isnan(found.scores[stop:]).all()


def test_select_runs_inside_jit_with_a_traced_pool(whole):
    found = jax.jit(lambda key, pool: sel.select(sel.LCMD(), key, pool, PICKS))(KEY, POOL)
    assert order(found) == order(whole("lcmd"))[:PICKS]
    # Inside a trace nobody can refuse too few candidates; the count tells.
    few = np.array([2, 5])
    short = jax.jit(lambda c: sel.select(sel.LCMD(), KEY, POOL, 4, candidates=c))(few)
    assert int(short.count) == 2
    assert sorted(order(short)) == [-1, -1, 2, 5]


def test_one_program_serves_all_keys_and_pools_of_one_shape():
    traces = []

    def apply(params, x):
        traces.append(0)
        return x @ params

    selector = sel.RND(lambda key: jax.random.normal(key, (10, 2)), apply, max_steps=10)
    sel.select(selector, KEY, POOL, 10)
    first = len(traces)
    sel.select(selector, jax.random.key(8), pool(rows=range(20, 36)), 10)
    assert len(traces) == first > 0


def test_declarations_are_true():
    for name, selector in SELECTORS.items():
        assert hash(selector) == hash(selector), name
        assert set(selector.requires) <= set(sel.Pool._fields)
    uses = {name for name, selector in SELECTORS.items() if selector.labels}
    assert uses == {"stratified", "el2n", "grad_norm", "per_class"}
