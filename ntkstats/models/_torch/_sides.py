"""Inputs whose rows are computed together, and in which portions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ntkstats.typing import PyTree

MOST_ROWS = 1024


class Side(NamedTuple):
    """One set of inputs.

    Attributes
    ----------
    samples
        Tensors with one axis of samples in front.
    n, width
        Number of samples (1 if they interact) and of outputs of each.
    """

    samples: PyTree
    n: int
    width: int


def chunks(n: int, width: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Ranges of samples and of outputs, at most ``most`` rows each."""
    most = max(1, min(most, MOST_ROWS))
    columns = min(width, most)
    step = max(1, most // columns)
    for first in range(0, n, step):
        for start in range(0, width, columns):
            yield first, min(n, first + step), start, min(width, start + columns)
