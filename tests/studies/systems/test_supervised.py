"""What the settings do to data and updates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntkstats as nts
from studies._errors import StudyError
from studies.datasets import load
from studies.systems._options import Learning
from studies.systems._scores import importance
from studies.systems._supervised import (
    chosen_samples,
    corrupted,
    cross_entropy,
    moments,
    squared_error,
    training_samples,
)
from studies.systems._train import sampled, switched

X = np.arange(12.0)[:, None].astype(np.float32)
Y = (2 * X).astype(np.float32)


def test_fewer_samples_are_the_first_ones():
    digits = load("digits")
    x, y = chosen_samples(digits, Learning(samples=50))
    np.testing.assert_array_equal(x, digits.x_train[:50])
    np.testing.assert_array_equal(y, digits.y_train[:50])
    assert len(chosen_samples(digits, Learning())[1]) == len(digits.y_train)


def test_copies_repeat_each_sample_and_only_copies_are_noisy():
    data = load("auto_mpg")
    x, y = training_samples(data, Learning(samples=20, copies=3, jitter=0.1))
    np.testing.assert_array_equal(x[:20], data.x_train[:20])
    np.testing.assert_array_equal(y, np.concatenate([data.y_train[:20]] * 3))
    noise = x[20:] - np.concatenate([data.x_train[:20]] * 2)
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert x.dtype == np.float32
    exact, _ = training_samples(data, Learning(samples=20, copies=3))
    np.testing.assert_array_equal(exact, np.concatenate([data.x_train[:20]] * 3))


def test_copies_of_graphs_keep_their_parts_together():
    data = load("atlas")
    x, _ = training_samples(data, Learning(samples=5, copies=2))
    assert {name: len(part) for name, part in x.items()} == {"nodes": 10, "edges": 10, "mask": 10}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_labels_is_wrong(share):
    y = np.arange(200, dtype=np.int32) % 7
    wrong = corrupted(y, share, seed=0)
    assert (wrong != y).sum() == round(share * 200)
    assert wrong.dtype == np.int32
    assert set(wrong) <= set(range(7))
    np.testing.assert_array_equal(corrupted(y, share, seed=0), wrong)


def test_wrong_values_are_those_of_other_samples():
    wrong = corrupted(Y, 0.5, seed=1)
    assert (wrong != Y).sum() == 6
    np.testing.assert_array_equal(np.sort(wrong, 0), Y)
    np.testing.assert_array_equal(Y, 2 * X)


def test_every_position_of_a_wrong_sequence_is_wrong():
    y = np.arange(60, dtype=np.int32).reshape(10, 6) % 5
    wrong = corrupted(y, 0.4, seed=0)
    assert sorted((wrong != y).sum(1)) == [0] * 6 + [6] * 4


def test_records_are_dense_again_after_the_targets_turn_wrong():
    config = Learning(steps=1000, records=5, corruption=0.2, corrupt_at=600)
    steps = moments(config).points(1000).tolist()
    assert 600 in steps
    assert {step - 600 for step in steps if step >= 600} >= set(
        nts.RecordAt.log(5, until=400).points(400).tolist()
    )
    plain = moments(Learning(steps=1000, records=5, corrupt_at=600)).points(1000).tolist()
    assert plain == nts.RecordAt.log(5, until=1000).points(1000).tolist()


def test_a_switched_task_is_the_one_and_then_the_other():
    def task(targets):
        return nts.training.supervised(
            lambda key: jax.random.normal(key, (1, 1)) / 10,
            lambda w, x: x @ w,
            optax.sgd(1e-3),
            squared_error,
            X,
            jnp.asarray(targets),
            batch_size=4,
        )

    before, after = task(Y), task(-Y)
    keys = jax.random.split(jax.random.key(0), 2)
    found = nts.training.run(switched(before, after, 20), keys, 35)
    middle = nts.training.run(before, keys, 20)
    expected = nts.training.run(after, keys, 35, carry=middle, start=20)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found.params, expected.params
    )
    assert (middle.params > 0).all()
    assert (found.params < middle.params).all()


def test_a_sampled_task_follows_the_gradient_of_the_mean():
    """The mean of (w - noise)^2 is least at the mean of the noise."""

    def objective(w, key):
        return ((w - 3.0 - jax.random.normal(key, (64,))) ** 2).mean()

    task = sampled(lambda key: jax.random.normal(key), objective, optax.sgd(0.05))
    keys = jax.random.split(jax.random.key(0), 2)
    found = nts.training.run(task, keys, 400).params
    # the stationary deviation of w is that of a mean over some 40 updates of 64 draws
    np.testing.assert_allclose(found, 3.0, atol=0.1)
    assert found[0] != found[1]


def test_losses_are_means_over_positions():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(5, 3, 4)), rng.integers(0, 4, (5, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, y[..., None], -1))[..., 0].mean(1)
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(y)), expected, 1e-5)
    found = squared_error(jnp.asarray(logits), jnp.zeros((5, 3, 4)))
    np.testing.assert_allclose(found, (logits**2).mean((1, 2)), rtol=1e-5)


def test_importance_weights_of_equal_size_are_worth_all_samples():
    found = importance(jnp.full(10, 0.7), log_z=0.9)
    for name, value in {
        "loss": -0.7,
        "kl": 0.2,
        "ess": 1.0,
        "log_z": 0.7,
        "log_z_stderr": 0,
    }.items():
        assert float(found[name]) == pytest.approx(value, abs=1e-6)


def test_importance_weights_of_different_size():
    w = np.array([1.0, 3.0, 4.0])
    found = importance(jnp.log(w), log_z=0.0)
    assert float(found["ess"]) == pytest.approx(64 / (3 * 26))
    assert float(found["log_z"]) == pytest.approx(np.log(8 / 3))
    error = w.std(ddof=1) / np.sqrt(3) / w.mean()
    assert float(found["log_z_stderr"]) == pytest.approx(error, rel=1e-5)


def test_noise_on_characters_is_refused():
    with pytest.raises(StudyError, match="inputs are integers"):
        training_samples(load("manual"), Learning(copies=2, jitter=0.1))
