"""Selectors against definitions written out in NumPy, in float64."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import selection as sel
from tests.selection.systems import KEY, N, digits, matrices, picks, pool, table

POOL = pool()
K, PRIOR = matrices(POOL)


def greedy(score, k, n=N):
    """Pick what maximises ``score(list of picks, candidate)`` k times."""
    chosen, values = [], []
    for _ in range(k):
        scores = [score(chosen, x) if x not in chosen else -np.inf for x in range(n)]
        chosen.append(int(np.argmax(scores)))
        values.append(max(scores))
    return chosen, np.array(values)


def check(selector, score, k=6, rtol=1e-8, first=None):
    """The selector's picks and scores are those of the definition."""
    found = sel.select(selector, KEY, POOL, k, precision="float64")
    chosen, values = greedy(score, k)
    assert found.indices.tolist() == chosen
    skip = 0 if first is None else 1
    np.testing.assert_allclose(found.scores[skip:], values[skip:], rtol=rtol)
    return found


def test_maxdet_maximises_the_determinant():
    def log_det(chosen, x):
        part = K[np.ix_([*chosen, x], [*chosen, x])]
        before = K[np.ix_(chosen, chosen)]
        return np.exp(np.linalg.slogdet(part)[1] - np.linalg.slogdet(before)[1])

    found = check(sel.MaxDet(), log_det)
    part = K[np.ix_(found.indices, found.indices)]
    total = float(np.log(np.asarray(found.scores)).sum())
    np.testing.assert_allclose(total, np.linalg.slogdet(part)[1], rtol=1e-9)


def limit_variance(chosen, x):
    """V of the closed form, with every inverse written out."""
    if not chosen:
        return 2 * PRIOR[x, x]
    weights = np.linalg.solve(K[np.ix_(chosen, chosen)], K[chosen, x])
    return 2 * (
        PRIOR[x, x]
        - 2 * weights @ PRIOR[chosen, x]
        + weights @ PRIOR[np.ix_(chosen, chosen)] @ weights
    )


def test_rnd_limit_is_the_closed_form():
    check(sel.RNDLimit(), limit_variance, k=9)


def test_rnd_limit_with_one_trained_layer_is_maxdet():
    one = POOL._replace(prior=None)
    limit = sel.select(sel.RNDLimit(), KEY, one, N - 2, precision="float64")
    maxdet = sel.select(sel.MaxDet(), KEY, one, N - 2, precision="float64")
    assert limit.indices.tolist() == maxdet.indices.tolist()
    np.testing.assert_allclose(limit.scores, 2 * np.asarray(maxdet.scores), rtol=1e-6)


def test_mean_variance_is_that_of_retrained_gaussian_processes():
    noise = 1e-3 * K.trace() / N

    def mean_variance(chosen):
        if not chosen:
            return K.trace() / N
        inner = K[np.ix_(chosen, chosen)] + noise * np.eye(len(chosen))
        return np.mean(np.diag(K - K[:, chosen] @ np.linalg.solve(inner, K[chosen])))

    check(
        sel.MeanVariance(),
        lambda chosen, x: mean_variance(chosen) - mean_variance([*chosen, x]),
        rtol=1e-6,
    )


def test_mean_variance_without_the_matrix_agrees():
    x = table()[0][:30]
    features = sel.Pool(kernel=sel.linear(x))
    written = sel.Pool(kernel=sel.dense(x @ x.T))
    a = sel.select(sel.MeanVariance(), KEY, features, 8, precision="float64")
    b = sel.select(sel.MeanVariance(), KEY, written, 8, precision="float64")
    assert a.indices.tolist() == b.indices.tolist()
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-3)  # entries were rounded to float32


def test_renyi_entropy_is_that_of_the_set():
    def renyi(chosen, x):
        part = K[np.ix_([*chosen, x], [*chosen, x])]
        # One sample has no entropy; then the largest comes first.
        return 2 * np.log(part.trace()) - np.log((part**2).sum()) if chosen else K[x, x]

    check(sel.MaxRenyi2(), renyi, first="scale")


def test_most_entropic_set_is_found_if_all_are_drawn():
    small = pool(6)
    kernel = next(matrices(small))

    def entropy(chosen):
        p = np.linalg.eigvalsh(kernel[np.ix_(chosen, chosen)])
        p = p / p.sum()
        return -(p * np.log(p)).sum()

    best = max(combinations(range(6), 2), key=entropy)
    found = sel.select(sel.MaxEntropy(draws=150), KEY, small, 2)
    assert sorted(found.indices.tolist()) == list(best)
    np.testing.assert_allclose(found.scores, entropy(best), rtol=1e-4)


def distance(x, y):
    return np.sqrt(max(K[x, x] + K[y, y] - 2 * K[x, y], 0))


def test_farthest_point_and_its_guarantee():
    def nearest(chosen, x):
        return min(distance(x, y) for y in chosen) if chosen else np.sqrt(K[x, x])

    found = check(sel.FarthestPoint(), nearest)

    def radius(centers):
        return max(min(distance(x, y) for y in centers) for x in range(N))

    best = min(radius(centers) for centers in combinations(range(N), 3))
    assert radius(found.indices[:3].tolist()) <= 2 * best + 1e-9


def test_lcmd_takes_the_farthest_of_the_largest_cluster():
    chosen = [int(np.argmax(np.diag(K)))]
    for _ in range(7):
        owner = [min(range(len(chosen)), key=lambda j: distance(x, chosen[j])) for x in range(N)]
        squared = [distance(x, chosen[owner[x]]) ** 2 for x in range(N)]
        sizes = [sum(s for s, o in zip(squared, owner, strict=True) if o == j)
                 for j in range(len(chosen))]  # fmt: skip
        largest = int(np.argmax(sizes))
        chosen.append(max((x for x in range(N) if owner[x] == largest), key=squared.__getitem__))
    assert picks(sel.LCMD(), POOL, 8, precision="float64").tolist() == chosen


def test_facility_location_gains_and_guarantee():
    similar = np.maximum(K, 0)

    def value(chosen):
        return similar[:, list(chosen)].max(1).mean() if len(chosen) else 0.0

    found = check(sel.FacilityLocation(), lambda c, x: value([*c, x]) - value(c), k=5)
    assert (np.diff(found.scores) <= 1e-12).all()
    best = max(value(chosen) for chosen in combinations(range(N), 3))
    assert value(found.indices[:3].tolist()) >= (1 - 1 / np.e) * best


@pytest.mark.slow
def test_facility_location_by_references_serves_them():
    x = digits()[0][:200]
    full, some = (
        picks(sel.FacilityLocation(references=m), sel.Pool(kernel=sel.linear(x)), 5)
        for m in (200, 60)
    )
    kernel = x @ x.T
    served = [kernel[:, chosen].max(1).mean() for chosen in (full, some)]
    random = [kernel[:, picks(sel.Random(), sel.Pool(x=x), 5, jax.random.key(s))].max(1).mean()
              for s in range(20)]  # fmt: skip
    assert served[0] >= served[1] > np.max(random)


def test_herding_closes_the_gap_to_the_mean():
    mean = K.mean(1)
    check(sel.KernelHerding(), lambda c, x: mean[x] - K[x, c].sum() / (len(c) + 1))


def mmd(chosen, kernel):
    return np.sqrt(
        kernel.mean() - 2 * kernel[:, chosen].mean() + kernel[np.ix_(chosen, chosen)].mean()
    )


def test_herding_matches_the_pool_better_than_random_sets():
    x = digits()[0][:150].astype(np.float64)
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / 20)
    data = sel.Pool(kernel=sel.dense(kernel.astype(np.float32)))
    herd = mmd(picks(sel.KernelHerding(), data, 15), kernel)
    rng = np.random.default_rng(0)
    random = [mmd(rng.permutation(150)[:15], kernel) for _ in range(200)]
    assert herd < np.quantile(random, 0.01)


@pytest.mark.parametrize(
    "selector", [pytest.param(sel.KMeansPP(), marks=pytest.mark.slow), sel.MaxDet(randomised=True)]
)
def test_draws_follow_their_weights(selector):
    small = pool(7)
    kernel = next(matrices(small))
    chosen = jax.vmap(lambda key: sel.select(selector, key, small, 2).indices)(
        jax.random.split(jax.random.key(1), 4000)
    )
    chosen = np.asarray(chosen)
    diagonal = np.diag(kernel)
    first = diagonal / diagonal.sum() if isinstance(selector, sel.MaxDet) else np.full(7, 1 / 7)
    expected = np.zeros((7, 7))
    for i in range(7):
        if isinstance(selector, sel.MaxDet):
            weight = diagonal - kernel[i] ** 2 / kernel[i, i]
        else:
            weight = diagonal + kernel[i, i] - 2 * kernel[i]
        weight[i] = 0
        expected[i] = first[i] * weight / weight.sum()
    counts = np.zeros((7, 7))
    np.add.at(counts, tuple(chosen.T), 1)
    used = expected > 0
    chi = ((counts - 4000 * expected)[used] ** 2 / (4000 * expected[used])).sum()
    assert chi < 41 + 5 * np.sqrt(2 * 41)  # 42 cells, one constraint
    assert counts[~used].sum() == 0


def test_random_is_uniform_and_reaches_the_last_sample():
    keys = jax.random.split(jax.random.key(2), 3000)
    chosen = jax.vmap(lambda key: sel.select(sel.Random(), key, POOL, 3).indices)(keys)
    counts = np.bincount(np.asarray(chosen).ravel(), minlength=N)
    expected = 3000 * 3 / N
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_medoids_of_separated_clusters():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.3, (m, 2)) for c, m in ((0, 30), (8, 20), (-9, 10))])
    found = sel.select(sel.KMedoids(), KEY, sel.Pool(kernel=sel.linear(x.astype(np.float32))), 3)
    expected, start = [], 0
    for m in (30, 20, 10):
        part = x[start : start + m]
        expected.append(start + int(((part - part.mean(0)) ** 2).sum(1).argmin()))
        start += m
    assert found.indices.tolist() == expected
    np.testing.assert_allclose(found.weights, np.array([30, 20, 10]) / 60, rtol=1e-5)


def test_strata_are_balanced_at_every_prefix():
    y = digits()[1][:200]
    data = sel.Pool(y=jnp.asarray(y))
    chosen = picks(sel.Stratified(), data, 50)
    share = np.bincount(y) / 200
    for k in (10, 25, 50):
        assert np.abs(np.bincount(y[chosen[:k]], minlength=10) - k * share).max() < 1
    equal = picks(sel.Stratified(balance="equal"), data, 50)
    assert (np.bincount(y[equal], minlength=10) == 5).all()


def test_per_class_takes_turns_and_keeps_the_inner_order():
    x, y = digits()
    data = sel.Pool(y=jnp.asarray(y[:100]), kernel=sel.linear(x[:100]))
    chosen = picks(sel.PerClass(sel.MaxNorm()), data, 30)
    norms = (x[:100] ** 2).sum(1)
    for label in range(10):
        mine = [i for i in chosen if y[i] == label]
        assert len(mine) == 3
        largest = np.flatnonzero(y[:100] == label)
        assert mine == largest[np.argsort(-norms[largest])][:3].tolist()


def test_minibatches_are_picked_whole_best_first():
    x = digits()[0][:40]
    data = sel.Pool(kernel=sel.linear(x))
    chosen = picks(sel.ByBatch(sel.MaxNorm(), size=8), data, 40)
    norms = (x**2).sum(1)
    means = [norms[chosen[j : j + 8]].mean() for j in range(0, 40, 8)]
    assert (np.diff(means) < 0).all()
    for j in range(0, 40, 8):
        assert (np.diff(norms[chosen[j : j + 8]]) <= 0).all()


def test_clusters_are_sampled_at_strides():
    clusters = np.repeat([5, 0, -1, 9], [16, 8, 7, 8])
    data = sel.Pool(clusters=jnp.asarray(clusters))
    for k, stride in ((8, 4), (16, 2), (32, 1)):
        chosen = set(picks(sel.ClusterStratified(), data, k).tolist())
        expected = {i for c in (5, 0, 9) for i in np.flatnonzero(clusters == c)[::stride]}
        assert chosen == expected


def test_difficulty_of_a_linear_classifier_in_closed_form():
    x, y = digits()
    x, y = x[:60], y[:60]
    w = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32) / 4

    def init(key):
        return jnp.asarray(w)

    def apply(w, x):
        return x @ w

    logits = x @ w
    p = np.exp(logits - logits.max(1, keepdims=True))
    error = p / p.sum(1, keepdims=True) - np.eye(10)[y]
    length = np.linalg.norm(error, axis=1)
    data = sel.Pool(x=jnp.asarray(x), y=jnp.asarray(y))
    el2n = sel.select(sel.EL2N(init, apply, members=1), KEY, data, 60)
    assert (np.diff(el2n.scores) <= 0).all()
    np.testing.assert_allclose(el2n.scores, length[el2n.indices], rtol=1e-4)
    grad = sel.select(sel.GradNorm(init, apply, members=1), KEY, data, 60)
    expected = length * np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(grad.scores, expected[grad.indices], rtol=1e-4)
    easy = sel.select(sel.EL2N(init, apply, members=1, keep="easy"), KEY, data, 60)
    np.testing.assert_allclose(-easy.scores, np.sort(length), rtol=1e-4)
