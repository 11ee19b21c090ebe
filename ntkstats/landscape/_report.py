"""What became of a search."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ntkstats.landscape._pool import CONVERGED, DIVERGED, EXHAUSTED, NOT_FINITE, STALLED


@dataclass(frozen=True)
class Report:
    """What became of the starts of a search.

    Attributes
    ----------
    starts
        How many were run.
    converged
        Arrived at a stationary point.
    new
        Stationary points that were not known.
    other_index
        Arrived at a point of another index than asked for (kept, too).
    unfinished
        Out of iterations or stuck.
    not_finite
        Met numbers that are not finite.
    diverged
        Left every bounded region.
    """

    starts: int = 0
    converged: int = 0
    new: int = 0
    other_index: int = 0
    unfinished: int = 0
    not_finite: int = 0
    diverged: int = 0

    def plus(self, status: np.ndarray, new: int, other_index: int) -> Report:
        """With another batch."""
        count = {code: int((status == code).sum()) for code in range(6)}
        return Report(
            self.starts + len(status),
            self.converged + count[CONVERGED],
            self.new + new,
            self.other_index + other_index,
            self.unfinished + count[STALLED] + count[EXHAUSTED],
            self.not_finite + count[NOT_FINITE],
            self.diverged + count[DIVERGED],
        )

    def as_dict(self) -> dict[str, int]:
        """For the store."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Report:
        """From the store, which may hold more than this."""
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})
