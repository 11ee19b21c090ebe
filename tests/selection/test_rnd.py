"""Random network distillation: against its limit, and in hard places."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkstats import selection as sel
from ntkstats.selection._rows import Rows
from ntkstats.selection._types import Problem
from tests.selection.systems import KEY, digits, picks, rbf, table

X = table()[0][:24]


def random_features(width):
    """A network whose last layer alone is trained: linear in its parameters."""
    fixed = jax.random.normal(jax.random.key(9), (10, width)) / 3

    def features(x):
        return jax.nn.relu(x @ fixed) * (2 / width) ** 0.5

    def apply(params, x):
        return features(x) @ params

    return features, apply


FEATURES, LAST = random_features(32)
OUTPUTS = 16


def last_init(key):
    return jax.random.normal(key, (32, OUTPUTS))


# Gradient descent at a rate that converges to rounding error.
EXACT = {
    "optimizer": optax.sgd(8.0, momentum=0.9),
    "until": 1e-9,
    "max_steps": 3000,
    "check_every": 100,
}


def states(selector, x, chosen):
    """Errors on the pool after each of the picks, by the selector's own steps."""
    n = x.shape[0]
    everyone = jnp.ones(n, bool)
    measure = jnp.full(n, 1 / n)
    problem = Problem(
        sel.Pool(x=jnp.asarray(x)), Rows(n), everyone, measure, ~everyone, 0, len(chosen) + 1, 1
    )

    @jax.jit
    def run(key):
        def step(state, slot):
            state = selector.update(state, problem, jnp.asarray(chosen)[slot], slot)
            state = selector.refresh(state, problem, slot + 1)
            return state, (state.errors, state.log["learned"][slot + 1])

        start = selector.start(key, problem)
        return start, jax.lax.scan(step, start, jnp.arange(len(chosen)))[1]

    return run(KEY)


@pytest.mark.parametrize("restart", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_linear_network_errs_by_the_interpolation_of_its_untrained_error(restart):
    selector = sel.RND(last_init, LAST, restart=restart, **EXACT)
    chosen = [3, 17, 8, 11]
    start, (errors, learned) = states(selector, X, chosen)
    assert learned.all()
    phi = np.asarray(FEATURES(X), np.float64)
    kernel = phi @ phi.T
    untrained = np.asarray(start.goal[0] - LAST(start.fresh[0], X), np.float64)
    for k in range(1, 5):
        known = chosen[:k]
        left = untrained - kernel[:, known] @ np.linalg.solve(
            kernel[np.ix_(known, known)], untrained[known]
        )
        np.testing.assert_allclose(errors[k - 1], (left**2).mean(1), rtol=2e-2, atol=2e-4)


@pytest.mark.slow
def test_warm_and_cold_starts_pick_the_same_in_a_linear_network():
    data = sel.Pool(x=X)
    warm, cold = (
        picks(sel.RND(last_init, LAST, restart=restart, **EXACT), data, 6)
        for restart in (False, True)
    )
    assert warm.tolist() == cold.tolist()


def test_many_outputs_of_one_trained_layer_pick_as_maxdet():
    def init(key):
        return jax.random.normal(key, (32, 4000))

    kernel = sel.linear(FEATURES(X))
    limit = picks(sel.RNDLimit(), sel.Pool(kernel=kernel), 5)
    found = picks(sel.RND(init, LAST, **EXACT), sel.Pool(x=X), 5)
    assert (
        found.tolist() == limit.tolist() == picks(sel.MaxDet(), sel.Pool(kernel=kernel), 5).tolist()
    )


@pytest.mark.slow
def test_wide_network_errs_by_twice_the_variance_of_an_ensemble():
    width, outputs, n = 2048, 64, 40
    x = table()[0][:n]
    chosen = [0, 7, 21, 33, 12, 5]

    def init(key):
        k1, k2 = jax.random.split(key)
        return jax.random.normal(k1, (10, width)), jax.random.normal(k2, (width, outputs))

    def apply(params, x):
        hidden = jax.nn.relu(x @ params[0] / 10**0.5) * 2**0.5
        return hidden @ params[1] / width**0.5

    selector = sel.RND(
        init, apply, pairs=2, optimizer=optax.sgd(20.0), until=1e-4, max_steps=4000, check_every=100
    )
    _, (errors, learned) = states(selector, x, chosen)
    assert learned.all()
    # Arc-cosine kernels (Cho and Saul 2009) of one hidden layer of ReLU.
    x = x.astype(np.float64)
    inner, norm = x @ x.T / 10, np.sqrt((x**2).sum(1) / 10)
    scale = np.outer(norm, norm)
    angle = np.arccos(np.clip(inner / scale, -1, 1))
    prior = scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
    kernel = prior + inner * (np.pi - angle) / np.pi
    weights = np.linalg.solve(kernel[np.ix_(chosen, chosen)], kernel[chosen])
    variance = np.diag(prior) - 2 * (weights * prior[chosen]).sum(0)
    variance += (weights * (prior[np.ix_(chosen, chosen)] @ weights)).sum(0)
    rest = np.setdiff1d(np.arange(n), chosen)
    found, expected = np.asarray(errors[-1])[rest], 2 * variance[rest]
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    assert 0.85 < found.sum() / expected.sum() < 1.15


def small(outputs=8):
    def init(key):
        k1, k2, k3 = jax.random.split(key, 3)
        w, b = jax.random.normal(k1, (2, 24)), jax.random.normal(k2, (24,))
        return w, b, jax.random.normal(k3, (24, outputs)) / 5

    # Without the bias it would be odd, and opposite inputs the same to it.
    return init, lambda params, x: jnp.tanh(x @ params[0] + params[1]) @ params[2]


@pytest.mark.slow
def test_lattice_is_covered_better_than_by_random_sets():
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 10)] * 2), -1).reshape(-1, 2)
    selector = sel.RND(*small(32), pairs=4, optimizer=optax.adam(1e-2), max_steps=300)
    chosen = picks(selector, sel.Pool(x=grid.astype(np.float32)), 5)

    def closest(points):
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        return apart[np.triu_indices(5, 1)].min()

    rng = np.random.default_rng(0)
    random = [closest(grid[rng.permutation(100)[:5]]) for _ in range(500)]
    assert closest(grid[chosen]) >= np.quantile(random, 0.95)


def test_predictor_that_cannot_learn_stops_and_is_flagged():
    init, apply = small()
    selector = sel.RND(
        init, apply, predictor_apply=lambda params, x: 0 * apply(params, x),
        max_steps=30, check_every=10,
    )  # fmt: skip
    x = table()[0][:20, :2]
    found = sel.select(selector, KEY, sel.Pool(x=x), 6)
    assert found.aux["steps"].tolist() == [0, 30, 30, 30, 30, 30]
    assert found.aux["learned"].tolist() == [True] + [False] * 5
    assert len(set(found.indices.tolist())) == 6
    # It rates by the target's size alone, which training does not change.
    assert (np.diff(found.scores) <= 0).all()


def test_predictor_that_diverges_ends_the_picks_and_the_count_says_so():
    selector = sel.RND(*small(), optimizer=optax.sgd(1e6), max_steps=30)
    found = sel.select(selector, KEY, sel.Pool(x=table()[0][:20, :2]), 6)
    # The first is rated by untrained networks; after that there is nothing to rate by.
    assert int(found.count) == 1
    assert found.indices.tolist()[1:] == [-1] * 5
    assert found.aux["learned"].tolist() == [True] + [False] * 5


def test_batches_look_ahead_with_the_kernel():
    """Two far groups of near copies: the second pick of a batch must be in the other group."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.02, (6, 2)) for c in ((2.0, 2.0), (-2.2, 1.0), (0.3, 0.2))])
    x = x.astype(np.float32)
    data = sel.Pool(x=x, kernel=sel.dense(rbf(x, width=0.5).astype(np.float32)))
    blind, ahead = (
        picks(sel.RND(*small(), lookahead=how), data, 3, batch=3) // 6 for how in ("none", "kernel")
    )
    assert len(set(blind.tolist())) == 1
    assert sorted(ahead.tolist()) == [0, 1, 2]


@pytest.mark.slow
def test_options_change_what_they_say():
    x = table()[0][:20, :2]
    data = sel.Pool(x=x)
    init, apply = small()
    base = {"max_steps": 20, "check_every": 10}
    first = {int(picks(sel.RND(init, apply, first="random", **base), data, 1, jax.random.key(s))[0])
             for s in range(12)}  # fmt: skip
    assert len(first) > 5
    # Scores do not depend on the units of the inputs once these are whitened.
    a, b = (
        sel.select(sel.RND(init, apply, standardise="clip5", **base), KEY, sel.Pool(x=scaled), 3)
        for scaled in (x, 40 * x + 7)
    )
    assert a.indices.tolist() == b.indices.tolist()
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-3)
    cosine = sel.select(sel.RND(init, apply, distance="cosine", **base), KEY, data, 3)
    assert 0 < float(cosine.scores[0]) <= 2
    ranks = sel.select(sel.RND(init, apply, combine="rank", pairs=3, **base), KEY, data, 3)
    assert float(ranks.scores[0]) <= 19


@pytest.mark.slow
def test_znnl_preset_trains_in_growing_cycles():
    init, apply = small()
    selector = sel.RND.znnl(init, apply)
    found = sel.select(selector, KEY, sel.Pool(x=table()[0][:20, :2]), 4)
    cycles = np.cumsum(np.round(50 * np.float32(1.1) ** np.arange(11)))
    allowed = {*cycles.astype(int).tolist(), 926}
    # Halves may be rounded either way.
    allowed |= {steps + shift for steps in allowed for shift in (-1, 1)}
    assert set(found.aux["steps"][1:].tolist()) <= allowed
    learned = np.asarray(found.aux["loss"][1:]) <= 0.01
    assert learned.tolist() == found.aux["learned"][1:].tolist()


def test_pool_larger_than_a_chunk_is_rated_whole(monkeypatch):
    from ntkstats.selection import _distil

    x = digits()[0][:30]
    w = jax.random.normal(KEY, (2, 64, 5))
    whole = _distil.outputs(lambda w, x: x @ w, w, x)
    monkeypatch.setattr(_distil, "CHUNK", 8)
    np.testing.assert_allclose(_distil.outputs(lambda w, x: x @ w, w, x), whole, rtol=1e-5)
