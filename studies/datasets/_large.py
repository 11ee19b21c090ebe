"""MNIST and CIFAR-10, from a file of yours or the cache of another library.

[`find`][studies.datasets._caches.find] knows where Keras, torchvision and Hugging Face put them.
"""

from __future__ import annotations

import numpy as np

from studies.datasets._caches import CIFAR10, MNIST, Archive, find
from studies.datasets._images import standardised
from studies.datasets._kinds import Data
from studies.datasets._local import as_pixels


def mnist(*, seed: int = 0, download: bool = False) -> Data:
    """60 000 training and 10 000 test images of digits, 28 x 28.

    Parameters
    ----------
    seed
        Decides the order of the training images; the test set is the published one.
    download
        Fetch it (11 MB) if it is not on this machine.

    Raises
    ------
    StudyError
        It is not on this machine, a file is damaged, or the download failed.

    References
    ----------
    LeCun, Bottou, Bengio & Haffner (1998), *Gradient-based learning applied to document
    recognition*.
    """
    return _load(MNIST, seed, download=download)


def cifar10(*, seed: int = 0, download: bool = False) -> Data:
    """50 000 training and 10 000 test photographs, 32 x 32 in colour, of ten kinds of things.

    Parameters
    ----------
    seed, download
        As for `mnist` (170 MB).

    Raises
    ------
    StudyError
        It is not on this machine, a file is damaged, or the download failed.

    References
    ----------
    Krizhevsky (2009), *Learning multiple layers of features from tiny images*.
    """
    return _load(CIFAR10, seed, download=download)


def _load(archive: Archive, seed: int, *, download: bool) -> Data:
    (x_train, y_train, x_test, y_test), route = find(archive, download=download)
    order = np.random.default_rng(seed).permutation(len(x_train))
    return standardised(
        as_pixels(x_train[order]),
        y_train[order],
        as_pixels(x_test),
        y_test,
        archive.title,
        f"{archive.reference}, read from {route}",
        archive.licence,
    )
