"""Data of your own, from a folder that the environment names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from studies._errors import StudyError
from studies.datasets._images import standardised
from studies.datasets._kinds import Data, Table
from studies.datasets._split import scale_of

FOLDER = "NTKSTATS_DATA"
_PARTS = ("x_train", "y_train", "x_test", "y_test")


def data_folder() -> Path | None:
    """The folder that ``$NTKSTATS_DATA`` names, if it is set."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser() if named else None


def local_path(name: str) -> Path | None:
    """``$NTKSTATS_DATA/NAME.npz`` if there is such a file."""
    folder = data_folder()
    if folder is None or not name or Path(name).name != name:
        return None
    path = folder / f"{name}.npz"
    return path if path.is_file() else None


def local(name: str, *, seed: int = 0) -> Data | Table:
    """Images or a table from ``$NTKSTATS_DATA/NAME.npz``; no pickle is loaded.

    The file holds ``x_train, y_train, x_test, y_test``. Inputs ``(N, d)`` are a table; whole
    numbers ``(N, height, width)`` or ``(N, height, width, channels)`` are pixels from 0 to 255,
    floating-point ones from 0 to 1. Whole numbers as targets are classes.

    Parameters
    ----------
    name
        Of the file, without ``.npz``.
    seed
        Decides the order of the training samples; the test samples are those of the file.

    Raises
    ------
    StudyError
        There is no such file, or it does not hold what it should.
    """
    path = local_path(name)
    if path is None:
        msg = (
            f"No file {name}.npz in the folder that {FOLDER} names ({data_folder()}); expected an "
            f"npz file with {', '.join(_PARTS)} there."
        )
        raise StudyError(msg)
    x_train, y_train, x_test, y_test = read_npz(path)
    order = np.random.default_rng(seed).permutation(len(y_train))
    x_train, y_train = x_train[order], y_train[order]
    source = f"{path.name} (SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"
    terms = "as stated by whoever made the file"
    if x_train.ndim == 2:
        return _table(x_train, y_train, x_test, y_test, name, source, terms)
    parts = (as_pixels(x_train), y_train, as_pixels(x_test), y_test)
    return standardised(*parts, name, source, terms)


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four arrays of a file, checked.

    Raises
    ------
    StudyError
        Something is missing, does not fit together, or is not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [part for part in _PARTS if part not in stored.files]
            arrays = [] if missing else [stored[part] for part in _PARTS]
    except (OSError, ValueError) as error:
        msg = f"{path} is not readable as npz ({error}); write it with numpy.savez."
        raise StudyError(msg) from error
    if missing:
        msg = f"{path} lacks {', '.join(missing)}; expected {', '.join(_PARTS)}."
        raise StudyError(msg)
    x_train, y_train, x_test, y_test = arrays
    _check(path, x_train, y_train, x_test, y_test)
    return x_train, y_train, x_test, y_test


def as_pixels(x: np.ndarray) -> np.ndarray:
    """``(N, height, width, channels)`` in [0, 1]."""
    x = x[..., None] if x.ndim == 3 else x
    return x / np.float32(255) if np.issubdtype(x.dtype, np.integer) else x


def _table(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    name: str,
    source: str,
    terms: str,
) -> Table:
    inputs = scale_of(x_train)
    features = tuple(f"x{i}" for i in range(x_train.shape[1]))
    if np.issubdtype(y_train.dtype, np.integer):
        classes = (y_train.astype(np.int32), y_test.astype(np.int32), 0.0, 1.0)
        train, test, mean, std = classes
        target = "class"
    else:
        y_train, y_test = (y.reshape(len(y), -1) for y in (y_train, y_test))
        values = scale_of(y_train)
        train, test = values(y_train), values(y_test)
        mean, std, target = float(values.mean[0]), float(values.std[0]), "y"
    x = inputs(x_train), inputs(x_test)
    return Table(
        x[0], train, x[1], test, inputs.mean, inputs.std, mean, std, features, target,
        name, source, terms,
    )  # fmt: skip


def _check(
    path: Path, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> None:
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim not in (2, 3, 4) or not len(x) or len(x) != len(y):
            msg = (
                f"{path}: x_{part} has shape {x.shape} and y_{part} {y.shape}; expected (N, d), "
                "(N, height, width) or (N, height, width, channels) with N targets."
            )
            raise StudyError(msg)
        if x.shape[1:] != x_train.shape[1:]:
            msg = f"{path}: x_test has shape {x.shape} and x_train {x_train.shape}; expected alike."
            raise StudyError(msg)
        if y.size != len(y):
            msg = f"{path}: y_{part} has shape {y.shape}; expected one target a sample."
            raise StudyError(msg)
        for kind, values in (("x", x), ("y", y)):
            if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
                msg = f"{path}: {kind}_{part} holds what is no finite number."
                raise StudyError(msg)
