"""Where other libraries keep MNIST and CIFAR-10, and how to read it there."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from studies._errors import StudyError
from studies.datasets._formats import cifar_batches, idx_files, parquet_images, untarred
from studies.datasets._local import FOLDER, data_folder, read_npz

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Archive(NamedTuple):
    """A published set of images.

    Attributes
    ----------
    name, title, reference, licence
        What it is called here and by people, where it comes from, and its terms.
    shapes
        Of the training and test images.
    keras, torchvision, hub
        File in the Keras cache, folder that torchvision makes, repository on the Hugging Face hub.
    read
        Reads what the torchvision folder holds.
    url, sha256
        Where it is downloaded from, and the checksum of that file.
    """

    name: str
    title: str
    reference: str
    licence: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    keras: str
    torchvision: str
    hub: str
    read: Callable[[Path], Arrays]
    url: str
    sha256: str


MNIST = Archive(
    "mnist",
    "MNIST",
    "MNIST (LeCun et al., 1998)",
    "no licence file travels with it, usually cited as CC BY-SA 3.0",
    ((60000, 28, 28), (10000, 28, 28)),
    "mnist.npz",
    "MNIST/raw",
    "ylecun/mnist",
    idx_files,
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)

CIFAR10 = Archive(
    "cifar10",
    "CIFAR-10",
    "CIFAR-10 (Krizhevsky, 2009)",
    "no licence is stated with the data",
    ((50000, 32, 32, 3), (10000, 32, 32, 3)),
    "cifar-10-batches-py",
    "cifar-10-batches-py",
    "uoft-cs/cifar10",
    cifar_batches,
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)


def find(archive: Archive, *, download: bool) -> tuple[Arrays, str]:
    """Read the archive from the first place that has it; also says which.

    Raises
    ------
    StudyError
        No place has it; the message lists all of them. Or what is there is damaged.
    """
    tried = []
    for route, path, read in _routes(archive):
        if path.exists():
            return _checked(archive, read(path), path), route
        tried.append(f"{route}: {path}")
    if download:
        return _checked(archive, _downloaded(archive), Path(archive.url)), archive.url
    places = "\n".join(f"  {place}" for place in tried)
    msg = (
        f"{archive.title} is not on this machine. Any one of these would do:\n{places}\n"
        f"  or download=True, which fetches {archive.url}"
    )
    raise StudyError(msg)


def _routes(archive: Archive) -> Iterator[tuple[str, Path, Callable[[Path], Arrays]]]:
    own = data_folder()
    named = own if own is not None else Path(f"${FOLDER}")
    yield "a file of yours", named / f"{archive.name}.npz", read_npz
    yield "a torchvision folder", named / archive.torchvision, archive.read
    keras = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    whole = read_npz if archive.keras.endswith(".npz") else archive.read
    yield "the Keras cache", keras / archive.keras, whole
    hub = os.environ.get("HF_HUB_CACHE")
    cache = Path(hub) if hub else Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    folder = cache.expanduser() / f"datasets--{archive.hub.replace('/', '--')}"
    yield "the Hugging Face cache", folder, parquet_images


def _checked(archive: Archive, arrays: Arrays, path: Path) -> Arrays:
    x_train, y_train, x_test, y_test = arrays
    found = (x_train.shape, x_test.shape)
    labels = (y_train.size, y_test.size)
    expected = tuple(shape[0] for shape in archive.shapes)
    if found != archive.shapes or labels != expected or {x_train.dtype, x_test.dtype} != {_BYTE}:
        msg = (
            f"{path} holds images {found[0]} and {found[1]} of {x_train.dtype} with {labels} "
            f"labels; expected {archive.shapes[0]} and {archive.shapes[1]} of uint8. Remove it."
        )
        raise StudyError(msg)
    return x_train, y_train.reshape(-1), x_test, y_test.reshape(-1)


_BYTE = np.dtype(np.uint8)


def _downloaded(archive: Archive) -> Arrays:
    """Fetch into ``$NTKSTATS_DATA``, or the user's cache, whole and with the right checksum."""
    folder = data_folder() or Path("~/.cache/ntkstats").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / archive.url.rsplit("/", 1)[1]
    if not path.exists():
        half = path.with_name(path.name + ".partial")
        try:
            urllib.request.urlretrieve(archive.url, half)
        except (urllib.error.URLError, OSError) as error:
            half.unlink(missing_ok=True)
            msg = f"{archive.url} could not be fetched ({error}); try again, or put it at {path}."
            raise StudyError(msg) from error
        half.replace(path)
    if _sha256(path) != archive.sha256:
        msg = f"{path} has not the checksum of {archive.url}; remove it and try again."
        raise StudyError(msg)
    return read_npz(path) if path.suffix == ".npz" else untarred(path, archive.read)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
