"""Rows of real numbers: exactly those published, standardised by the training rows."""

from __future__ import annotations

import hashlib
import importlib.util

import numpy as np
import pytest

from ntkstats.errors import DependencyError
from studies._errors import StudyError
from studies.datasets import TABLES, _tables, duplicated, grouped_split, load
from studies.datasets._split import scale_of

VALUES = {"auto_mpg": (392, 7), "concrete": (1030, 8), "diabetes": (442, 10)}
ATOMS = {"csd1000r": (500, 100), "nice": (500, 160)}
CLASSES = {"iris": [50, 50, 50], "wine": [59, 71, 48], "breast_cancer": [212, 357]}
ALL = sorted({*VALUES, *ATOMS})


def table(name):
    if name in ATOMS and importlib.util.find_spec("skmatter") is None:
        pytest.skip("skmatter is not installed")
    return load(name)


def digest(*arrays):
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, np.float64).tobytes())
    return sha.hexdigest()[:16]


def test_files_hold_what_they_held():
    assert digest(*_tables._read_auto_mpg()) == "1d1cf0bb70fb3052"
    assert digest(*_tables._read_concrete()[:2]) == "95cb952ae1ade7d5"


def test_concrete_has_the_published_statistics():
    # ranges and mean that the repository and Yeh (1998) give
    x, y, names = _tables._read_concrete()
    assert names[0] == "cement"
    assert names[-1] == "age"
    assert (x[:, 0].min(), x[:, 0].max()) == (102.0, 540.0)
    assert (x[:, 3].min(), x[:, 3].max()) == (121.8, 247.0)  # water, rounded
    assert (x[:, -1].min(), x[:, -1].max()) == (1.0, 365.0)
    assert (y.min(), y.max()) == (2.33, 82.6)
    assert y.mean() == pytest.approx(35.82, abs=0.005)
    assert duplicated(np.c_[x, y]) == 25
    assert duplicated(x) == 38


def test_auto_mpg_has_the_published_statistics():
    x, y = _tables._read_auto_mpg()
    assert np.isfinite(x).all()
    assert sorted(set(x[:, 0])) == [3, 4, 5, 6, 8]
    assert (y.min(), y.max()) == (9.0, 46.6)
    assert y.mean() == pytest.approx(23.45, abs=0.005)


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_standardising_by_the_training_rows(name):
    data = table(name)
    n, d = {**VALUES, **ATOMS}[name]
    assert data.x_train.shape[1] == data.x_test.shape[1] == d == len(data.features)
    assert len(data.y_train) + len(data.y_test) == n
    assert len(data.y_test) == pytest.approx(0.2 * n, abs=2)
    assert {a.dtype for a in (data.x_train, data.x_test, data.y_train)} == {np.dtype(np.float32)}
    varies = data.x_train.std(0) > 0
    np.testing.assert_allclose(data.x_train.mean(0, np.float64), 0, atol=1e-4)
    np.testing.assert_allclose(data.x_train.std(0)[varies], 1, atol=1e-4)
    assert data.y_train.std() == pytest.approx(1, abs=1e-4)
    assert abs(data.x_test.mean(0)).max() > 1e-3
    assert abs(data.y_test.mean()) > 1e-5


@pytest.mark.parametrize("name", ALL)
def test_no_row_is_in_both_parts(name):
    data = table(name)
    train = {row.tobytes() for row in data.x_train}
    assert not any(row.tobytes() in train for row in data.x_test)


def test_standardised_values_are_those_of_the_file():
    data = load("concrete", seed=3)
    x, y, _ = _tables._read_concrete()
    whole = np.r_[data.x_train, data.x_test].astype(float) * data.x_std + data.x_mean
    strength = np.r_[data.y_train, data.y_test][:, 0].astype(float) * data.y_std + data.y_mean
    found, expected = np.c_[whole, strength], np.c_[x, y]
    np.testing.assert_allclose(np.sort(found, 0), np.sort(expected, 0), atol=1e-3)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_are_held_out_in_proportion(name):
    data = load(name)
    assert data.y_train.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(np.r_[data.y_train, data.y_test]), CLASSES[name])
    np.testing.assert_allclose(np.bincount(data.y_test), 0.2 * np.array(CLASSES[name]), atol=0.5)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_source_and_licence_are_stated(name):
    data = table(name)
    assert len(data.source) > 20
    assert len(data.licence) > 5


def test_a_constant_column_is_only_centred():
    scale = scale_of(np.array([[1e-3, 1.0], [1e-3, 3.0]]))
    np.testing.assert_array_equal(scale(np.array([[1e-3, 3.0]])), [[0.0, 1.0]])


def test_equal_rows_stay_on_one_side():
    x = np.repeat(np.arange(20.0), 5)[:, None]
    for seed in range(5):
        train, test = grouped_split(x, 0.3, seed=seed)
        assert not set(x[train, 0]) & set(x[test, 0])
        np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(100))
        assert len(test) == 30
    assert not np.array_equal(grouped_split(x, 0.3, seed=0)[1], grouped_split(x, 0.3, seed=1)[1])


@pytest.mark.parametrize(
    ("x", "share", "part"),
    [
        (np.arange(10.0)[:, None], 0.0, "in (0, 1)"),
        (np.arange(10.0)[:, None], 0.01, "holds out 0 of 10"),
        (np.ones((10, 1)), 0.5, "holds out 0 of 10"),
    ],
)
def test_impossible_shares_are_refused(x, share, part):
    with pytest.raises(StudyError) as caught:
        grouped_split(x, share, seed=0)
    assert part in str(caught.value)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install --no-deps skmatter"):
        TABLES["nice"]()
