"""The formats in which images are distributed: idx, CIFAR batches, parquet."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ntkstats.errors import DependencyError
from studies._errors import StudyError

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def idx_files(folder: Path) -> Arrays:
    """MNIST in its original format, packed or not."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    x_train, y_train, x_test, y_test = (idx(folder / f"{name}-ubyte") for name in names)
    return x_train, y_train, x_test, y_test


def idx(path: Path) -> np.ndarray:
    """One array of bytes: a magic number, the lengths of the axes, the values.

    Raises
    ------
    StudyError
        There is no such file, or it is something else.
    """
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and not packed.exists():
        msg = f"{path} is missing, and so is {packed.name}; expected one of them."
        raise StudyError(msg)
    raw = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    axes = raw[3] if len(raw) > 3 else 0
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", axes, 4)) if axes else ()
    header = 4 + 4 * axes
    if raw[:3] != b"\0\0\x08" or len(raw) - header != int(np.prod(shape)):
        msg = f"{path} is no idx file of bytes, or is cut short; remove it."
        raise StudyError(msg)
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def cifar_batches(folder: Path) -> Arrays:
    """CIFAR-10 as its authors distribute it: pickles, of which only arrays are read."""
    train = [_batch(folder / f"data_batch_{i}") for i in range(1, 6)]
    x_train, y_train = (np.concatenate(parts) for parts in zip(*train, strict=True))
    x_test, y_test = _batch(folder / "test_batch")
    return x_train, y_train, x_test, y_test


def untarred(path: Path, read: Callable[[Path], Arrays]) -> Arrays:
    """Read the one folder of a tar file."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(path) as packed:
        packed.extractall(scratch, filter="data")
        [folder] = Path(scratch).iterdir()
        return read(folder)


def parquet_images(folder: Path) -> Arrays:
    """A repository in the cache of the Hugging Face hub: images as PNG files in parquet tables.

    Raises
    ------
    DependencyError
        pyarrow is not installed.
    StudyError
        The cache holds no whole snapshot.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        msg = 'The Hugging Face cache is read with pyarrow: pip install "ntkstats[parquet]"'
        raise DependencyError(msg) from error
    parts = []
    for split in ("train", "test"):
        files = sorted(folder.glob(f"snapshots/*/*/{split}-*.parquet"))
        if not files:
            msg = f"{folder} holds no parquet file of the {split} part; remove it."
            raise StudyError(msg)
        newest = max(file.parent for file in files)
        tables = [parquet.read_table(file) for file in files if file.parent == newest]
        images, labels = tables[0].column_names[:2]
        parts.append(
            np.stack([_png(cell) for table in tables for cell in table[images].to_pylist()])
        )
        parts.append(np.concatenate([table[labels].to_numpy() for table in tables]))
    x_train, y_train, x_test, y_test = parts
    return x_train, y_train, x_test, y_test


def _png(cell: dict[str, Any]) -> np.ndarray:
    from PIL import Image  # comes with matplotlib

    with Image.open(io.BytesIO(cell["bytes"])) as image:
        return np.asarray(image)


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            stored = _ArraysOnly(file, encoding="bytes").load()
        x = np.asarray(stored[b"data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return x, np.asarray(stored[b"labels"], np.int32)
    except (OSError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        msg = f"{path} is no batch of CIFAR-10 ({error}); remove its folder."
        raise StudyError(msg) from error


class _ArraysOnly(pickle.Unpickler):
    """A pickle may call anything; this one may make arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy._core", "numpy.core"), name) in _ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        msg = f"{module}.{name} is not allowed"
        raise pickle.UnpicklingError(msg)


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
