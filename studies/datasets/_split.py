"""Training and test parts, and standardising by the training part alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from studies._errors import StudyError


def stratified_split(
    y: np.ndarray, test_fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose training and test samples: shuffled indices, the same share of every class held out.

    Raises
    ------
    StudyError
        The share is not in (0, 1), or leaves a class without training or test samples.
    """
    _check_share(test_fraction)
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


def grouped_split(
    x: np.ndarray, test_fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose training and test rows: shuffled indices, equal rows on one side.

    Some tables hold the same row several times; a copy among the test rows of what was learnt
    would measure memory.

    Raises
    ------
    StudyError
        The share is not in (0, 1), or leaves a side empty.
    """
    _check_share(test_fraction)
    rng = np.random.default_rng(seed)
    _, group = np.unique(x, axis=0, return_inverse=True)
    group = group.reshape(-1)
    wanted = round(test_fraction * len(x))
    test_groups: list[int] = []
    held = 0
    sizes = np.bincount(group)
    for g in rng.permutation(len(sizes)):
        if held + sizes[g] <= wanted:
            test_groups.append(int(g))
            held += int(sizes[g])
    if not 0 < held < len(x):
        msg = (
            f"test_fraction={test_fraction} holds out {held} of {len(x)} rows; expected at least "
            "one on each side."
        )
        raise StudyError(msg)
    is_test = np.isin(group, test_groups)
    return rng.permutation(np.flatnonzero(~is_test)), rng.permutation(np.flatnonzero(is_test))


class Scale(NamedTuple):
    """Mean and deviation of each column."""

    mean: np.ndarray
    std: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Standardised values, float32."""
        return ((values - self.mean) / self.std).astype(np.float32)


def scale_of(values: np.ndarray) -> Scale:
    """Mean and deviation of the columns; a constant column is only centred."""
    values = np.asarray(values, np.float64)
    std = values.std(axis=0)
    # What remains of a constant column after rounding is no deviation.
    constant = std <= 1e-12 * np.abs(values).max(axis=0)
    return Scale(values.mean(axis=0), np.where(constant, 1.0, std))


def duplicated(x: np.ndarray) -> int:
    """How many rows are copies of an earlier one."""
    return len(x) - len(np.unique(x, axis=0))


def _check_share(test_fraction: float) -> None:
    if not 0 < test_fraction < 1:
        msg = f"test_fraction={test_fraction!r}; expected a share in (0, 1)."
        raise StudyError(msg)
