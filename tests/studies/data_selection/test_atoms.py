"""The model and the groups of the atomistic leg."""

import jax
import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from studies.data_selection import _atoms
from studies.data_selection._atoms import Split, minority_of, predict, split_of
from studies.data_selection._tiers import TIERS

PLAN = TIERS["cores"].atoms


def test_predictions_are_those_of_a_gaussian_process(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    split = Split(x, y, x, y, np.zeros(40, int), np.zeros(40, bool), jax.random.key(0))
    train, probe = np.arange(25), rng.normal(size=(9, 3))
    monkeypatch.setattr(_atoms, "LENGTHS", (1.5,))
    monkeypatch.setattr(_atoms, "NOISES", (0.1,))
    known, target = x[train], y[train]
    distance = np.linalg.norm(known[:, None] - known[None], axis=-1)
    length = 1.5 * np.median(distance[np.triu_indices(25, 1)])
    peer = GaussianProcessRegressor(RBF(length), alpha=0.1, optimizer=None)
    peer.fit(known, (target - target.mean()) / target.std())
    expected = target.mean() + target.std() * peer.predict(probe)
    np.testing.assert_allclose(predict(split, train, probe), expected, rtol=1e-6)


def test_the_length_of_the_largest_evidence_is_taken():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (60, 1))
    for rate in (1.0, 6.0):
        y = np.sin(rate * x[:, 0])
        split = Split(x, y, x, y, np.zeros(60, int), np.zeros(60, bool), jax.random.key(0))
        error = predict(split, np.arange(50), x[50:]) - y[50:]
        assert np.sqrt(np.mean(error**2)) < 0.2


def test_minority_is_next_to_small_clusters():
    x = np.array([[0.0]] * 8 + [[10.0]] * 2)
    label = np.array([5] * 8 + [3] * 2)
    assert minority_of(x, label, np.array([[9.0], [1.0]])).tolist() == [True, False]
    # Clusters of a fifth or more are none of the minority.
    label = np.array([5] * 5 + [3] * 5)
    assert not minority_of(x, label, np.array([[9.0], [1.0]])).any()


def test_environments_are_in_clusters_from_core_to_rim():
    split = split_of(PLAN, 0, 0)
    assert len(split.x) == 400
    assert (np.diff(split.clusters) >= 0).all()
    assert len(np.unique(split.clusters)) == PLAN.clusters
    assert 0 < split.minority.sum() < 0.5 * len(split.x_test)
    first, *others = np.flatnonzero(split.clusters == split.clusters[0])
    rim = np.linalg.norm(split.x[others[-1]] - split.x[first])
    assert rim >= np.linalg.norm(split.x[others[0]] - split.x[first])
