"""What a set is worth: against NumPy, and against loops written out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkstats import as_model, errors
from ntkstats import selection as sel
from ntkstats.kernels import empirical_ntk
from tests.selection.systems import KEY, apply, init, matrices, pool, table

POOL = pool(30)
K, _ = matrices(POOL)
SET = np.array([2, 5, 7, 11, 20, 29])
ROWS = jnp.arange(30)


def test_numbers_at_initialisation():
    found = sel.score_at_init(POOL.kernel, SET, noise=1e-2)
    part = K[np.ix_(SET, SET)]
    p = np.linalg.eigvalsh(part) / part.trace()
    inner = part + 1e-2 * K.trace() / 30 * np.eye(6)
    distance = np.sqrt(np.diag(K)[:, None] + np.diag(part) - 2 * K[:, SET])
    expected = {
        "entropy": -(p * np.log(p)).sum(),
        "effective_entropy": -(p * np.log(p)).sum() / np.log(6),
        "renyi2_entropy": -np.log((p**2).sum()),
        "trace": part.trace(),
        "mean_diagonal": part.trace() / 6,
        "log_determinant": np.linalg.slogdet(part)[1],
        "uniform_divergence": -np.log(6 * p).mean(),
        "posterior_variance": np.diag(K - K[:, SET] @ np.linalg.solve(inner, K[SET])).mean(),
        "fill_distance": distance.min(1).max(),
        "mmd": np.sqrt(K.mean() - 2 * K[:, SET].mean() + part.mean()),
    }
    assert found.size == 6
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), [value], rtol=2e-4, err_msg=name)


def test_determinant_is_scale_and_flatness():
    found = sel.score_at_init(POOL.kernel, SET)
    split = 6 * np.log(found.mean_diagonal) - 6 * found.uniform_divergence
    np.testing.assert_allclose(found.log_determinant, split, rtol=1e-5)


def test_members_of_an_ensemble_stay_apart():
    model = as_model(apply)
    kernels = []
    for seed in range(3):
        params, state = model.split(init(jax.random.key(seed)))
        kernel = empirical_ntk(model, params, state, POOL.x, outputs="trace")
        kernels.append(sel.dense(kernel.matrix))
    together = sel.score_at_init(kernels, SET)
    assert together.entropy.shape == (3,)
    for member, kernel in enumerate(kernels):
        alone = sel.score_at_init(kernel, SET)
        np.testing.assert_allclose(together.trace[member], alone.trace[0], rtol=1e-6)


def test_ntk_columns_and_features_are_those_of_the_ntk():
    model = as_model(apply)
    params, state = model.split(init(KEY))
    exact = np.asarray(empirical_ntk(model, params, state, POOL.x, outputs="trace").matrix)
    lazy = sel.ntk_columns(model, params, state, POOL.x)
    rows = sel._rows.Rows(30)
    columns = jax.vmap(lambda i: lazy.column(lazy.anchor(i, rows)))(ROWS)
    np.testing.assert_allclose(columns, exact, rtol=1e-4, atol=1e-5)
    v = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    np.testing.assert_allclose(lazy.times(jnp.asarray(v), rows), exact @ v, rtol=1e-3, atol=1e-3)
    picked = [
        sel.select(sel.MaxDet(), KEY, sel.Pool(kernel=kernel), 8).indices.tolist()
        for kernel in (lazy, sel.dense(exact))
    ]
    assert picked[0] == picked[1]
    phi = sel.ntk_features(KEY, model, params, state, POOL.x, dim=4096).phi
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    # Standard error of an entry is at most sqrt(2 / dim) of the scale: 0.022.
    assert np.abs((np.asarray(phi @ phi.T) - exact) / scale).max() < 5 * 0.022


def test_kernels_made_of_kernels():
    rows = sel._rows.Rows(30)

    def written(kernel):
        return np.asarray(jax.vmap(lambda i: kernel.column(kernel.anchor(i, rows)))(ROWS))

    x = table()[0][:30]
    linear = x.astype(np.float64) @ x.T
    parts = [POOL.kernel, sel.linear(x)]
    cases = {
        "mean": (sel.mean_kernel(parts), (K + linear) / 2),
        "features": (sel.mean_kernel(parts[1:] * 2), linear),
        "normalised": (sel.normalised(POOL.kernel), K / np.sqrt(np.outer(*[np.diag(K)] * 2))),
        "posterior": (
            sel.posterior(POOL.kernel, SET, noise=0.1),
            K - K[:, SET] @ np.linalg.solve(
                K[np.ix_(SET, SET)] + 0.1 * K.trace() / 30 * np.eye(6), K[SET]
            ),
        ),
    }  # fmt: skip
    v = np.random.default_rng(0).normal(size=30).astype(np.float32)
    for name, (kernel, expected) in cases.items():
        np.testing.assert_allclose(written(kernel), expected, rtol=1e-3, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(kernel.diagonal(), np.diag(expected), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            kernel.times(jnp.asarray(v), rows), expected @ v, rtol=1e-3, atol=2e-3
        )
    # Conditioning on what is picked is picking on: MaxDet on what is left goes on.
    left = sel.Pool(kernel=sel.posterior(POOL.kernel, SET[:2], noise=0.0))
    free = np.setdiff1d(np.arange(30), SET[:2])
    a = sel.select(sel.MaxDet(), KEY, left, 5, candidates=free)
    b = sel.select(sel.MaxDet(), KEY, POOL, 5, selected=SET[:2])
    assert a.indices.tolist() == b.indices.tolist()


def test_several_sets_are_scored_as_each_alone():
    sets = np.array([SET, np.arange(6), np.arange(20, 26)])
    kernels = [POOL.kernel, sel.linear(table()[0][:30])]
    together = sel.score_at_init(kernels, sets)
    for j, chosen in enumerate(sets):
        alone = sel.score_at_init(kernels, chosen)
        for name in alone._fields[1:]:
            assert getattr(together, name).shape == (3, 2)
            np.testing.assert_allclose(
                getattr(together, name)[j], getattr(alone, name), rtol=1e-5, atol=1e-6
            )
    with pytest.raises(errors.SelectionError, match="each once"):
        sel.score_at_init(kernels, [[1, 2], [3, 3]])


X, Y = table()[0], ((table()[1] - 150) / 80).astype(np.float32)[:, None]
SETS = np.array([[0, 5, 9, 17], [3, 4, 30, 51]])


def regression(params, x):
    return apply(params, x)[:, :1]


def squared(output, y):
    return jnp.mean((output - y) ** 2, axis=-1)


def test_losses_after_training_are_those_of_a_loop():
    keys = jax.random.split(jax.random.key(5), 2)
    optimizer = optax.adam(3e-2)
    test, held = (X[200:300], Y[200:300]), (X[300:350], Y[300:350])
    score = sel.score_trained(
        keys, init, regression, optimizer, squared, (X, Y), SETS, test=test, validation=held,
        steps=40, evaluations=4, metrics={"mae": lambda out, y: jnp.abs(out - y)},
    )  # fmt: skip
    assert score.size == 4
    assert score.steps.tolist() == [0, 10, 20, 30, 40]

    @jax.jit
    def step(params, state, x, y):
        grads = jax.grad(lambda p: squared(regression(p, x), y).mean())(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for j, chosen in enumerate(SETS):
        for s, key in enumerate(keys):
            params = init(jax.random.split(key)[0])
            state = optimizer.init(params)
            tests, vals = [], []
            for i in range(41):
                if i % 10 == 0:
                    tests.append(float(squared(regression(params, test[0]), test[1]).mean()))
                    vals.append(float(squared(regression(params, held[0]), held[1]).mean()))
                params, state = step(params, state, X[chosen], Y[chosen])
                mae = float(jnp.abs(regression(params, test[0]) - test[1]).mean()) if i == 39 else 0
                if i == 39:
                    np.testing.assert_allclose(score.metrics["mae"][j, s], mae, rtol=1e-3)
            np.testing.assert_allclose(score.curve[j, s], tests, rtol=1e-3)
            np.testing.assert_allclose(score.final[j, s], tests[-1], rtol=1e-3)
            np.testing.assert_allclose(score.oracle_min[j, s], min(tests), rtol=1e-3)
            np.testing.assert_allclose(score.validated[j, s], tests[np.argmin(vals)], rtol=1e-3)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        pools = rng.normal(size=(25, 1))  # shared by both, so it drops out
        ours = pools + 0.3 + rng.normal(size=(25, 4))
        theirs = pools + rng.normal(size=(25, 4))
        found = sel.paired_difference(ours, theirs, size=5, key=jax.random.key(seed))
        covered += found.low <= 0.3 <= found.high
    assert 0.88 < covered / 200 <= 1.0  # the percentile bootstrap is a little short at 25


def test_sizes_are_compared_each_for_itself():
    rng = np.random.default_rng(0)
    losses = {
        "random": {5: rng.normal(2, 0.1, (6, 3)), 50: rng.normal(1, 0.1, (6, 3))},
        "maxdet": {50: rng.normal(0.9, 0.1, (6, 3))},
    }
    found = sel.compare(losses, key=KEY)
    assert set(found) == {("maxdet", 50)}
    assert found["maxdet", 50].mean == pytest.approx(
        (losses["maxdet"][50] - losses["random"][50]).mean()
    )
    # Within each size the number says nothing; over both it would say everything, wrongly.
    sizes = np.repeat([5, 50], 40)
    value = np.where(sizes == 5, 0.9, 0.5) + rng.normal(0, 0.01, 80)
    loss = np.where(sizes == 5, 2.0, 1.0) + rng.normal(0, 0.1, 80)
    assert np.corrcoef(value, loss)[0, 1] > 0.9
    for correlation in sel.correlate(value, loss, sizes).values():
        assert abs(correlation.rho) < 0.35
        assert correlation.sets == 40


def test_ranks_share_their_mean():
    found = sel.correlate([1, 1, 2, 3], [4, 4, 1, 0], [7] * 4)[7]
    assert found.rho == pytest.approx(-1.0)
    assert np.isnan(sel.correlate([1, 1, 1], [1, 2, 3], [7] * 3)[7].rho)


def losses(**changes):
    options = {"sets": SETS, "steps": 10, "evaluations": 5} | changes
    return sel.score_trained(
        jax.random.split(KEY, 2), init, regression, optax.sgd(0.1), squared, (X, Y),
        test=(X, Y), **options,
    )  # fmt: skip


REFUSED = [
    (lambda: sel.score_at_init(POOL.kernel, [3, 3]), "each once"),
    (lambda: sel.score_at_init(POOL.kernel, [-1, 3]), "Leave out the -1"),
    (lambda: sel.score_at_init(POOL.kernel, np.zeros(0, int)), "at least one"),
    (lambda: sel.score_at_init([], [1]), "expected at least one, one size"),
    (lambda: losses(sets=[[1, 1]]), "each once"),
    (lambda: losses(evaluations=3), "of which the second divides the first"),
    (lambda: sel.paired_difference([1.0], [2.0], size=1, key=KEY), "at least two pairs"),
    (lambda: sel.paired_difference([1, np.nan], [2, 3], size=1, key=KEY), "1 differences are not"),
    (lambda: sel.compare({"a": {}}, key=KEY), "baseline='random'; expected one of ['a']"),
    (
        lambda: sel.compare({"random": {3: [1, 2]}, "a": {4: [1, 2]}}, key=KEY),
        "a was run at size 4, random only at [3]",
    ),
    (lambda: sel.correlate([1, 2], [1, 2], [3, 3]), "2 sets of size 3; expected at least 3"),
    (lambda: sel.correlate([1, 2], [1], [3, 3]), "expected three vectors of one length"),
    (lambda: sel.stride_split(np.zeros(3, int), 0, key=KEY), "stride=0; expected an integer"),
    (lambda: sel.stride_split(np.zeros(3), 2, key=KEY), "expected one integer a sample"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_is_refused_with_a_message(call, message):
    with pytest.raises(errors.SelectionError, match=re.escape(message)):
        call()


def test_hafnia_scheme_takes_more_until_the_fit_is_good_enough():
    """Ridge regression on the variables, clusters by age: stops at the first good stride."""
    x, y = X[:, 1:], Y[:, 0]
    clusters = np.digitize(X[:, 0], [-1, 0, 1])

    def evaluate(train, test):
        design = np.c_[x[train], np.ones(train.size)]
        w = np.linalg.solve(design.T @ design + np.eye(10), design.T @ y[train])
        return np.abs(np.c_[x[test], np.ones(test.size)] @ w - y[test]).mean()

    errors_at = {}
    options = {"strides": (60, 30, 15, 8, 4), "key": KEY}
    run = sel.until_tolerance(evaluate, clusters, tolerance=0.0, **options)
    assert not run.converged
    assert len(run.rounds) == 5
    errors_at = {r.stride: r.error for r in run.rounds}
    sizes = [r.split.train.size for r in run.rounds]
    assert (np.diff(sizes) > 0).all()
    for r in run.rounds:
        assert not set(r.split.train) & set(r.split.test)
    stop = sel.until_tolerance(evaluate, clusters, tolerance=errors_at[15], **options)
    assert stop.converged
    assert stop.rounds[-1].stride in (30, 15)
    # A good first round does not end it: two are the least.
    assert len(sel.until_tolerance(evaluate, clusters, tolerance=9.0, **options).rounds) == 2
    fixed = sel.until_tolerance(evaluate, clusters, tolerance=9.0, test=np.arange(5), **options)
    assert fixed.rounds[0].split.test.tolist() == [0, 1, 2, 3, 4]
