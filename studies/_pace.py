"""The time that remains when updates are cheap and records on the way are not."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

from ntkstats.recording import RecordAt
from studies._progress import Update


class Pace:
    """A `progress` for `ntkstats.training.run` that knows when records are taken.

    Records are spaced logarithmically as a rule, so most of them lie at the beginning; the pace of
    the steps alone would promise hours at first.

    Parameters
    ----------
    update
        Told steps done, steps in total, and seconds left (NaN until they are known).
    at
        When records are taken.
    clock
        Returns seconds.
    """

    def __init__(
        self, update: Update, at: RecordAt, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._update = update
        self._at = at
        self._clock = clock
        self._before: tuple[int, float] | None = None
        self._plain: list[tuple[int, float]] = []
        self._recorded: list[tuple[int, float]] = []

    def __call__(self, done: int, total: int) -> None:
        """Pass on how far the training is; the record of this step, if any, comes after."""
        now = self._clock()
        if self._before is not None:
            start, then = self._before
            # the stretch from step 0 was compiled and says nothing
            if start > 0:
                kind = self._recorded if self._at.due(start) else self._plain
                kind.append((done - start, now - then))
        self._before = (done, now)
        self._update(done, total, self._left(done, total))

    def _left(self, done: int, total: int) -> float:
        if not self._recorded:
            return math.nan
        # a stretch with a record counts wholly for the record until there is one without
        step = sum(s for _, s in self._plain) / max(1, sum(n for n, _ in self._plain))
        record = max(0.0, statistics.median(s - n * step for n, s in self._recorded))
        points = self._at.points(total)
        still = int((points >= done).sum()) + int(total not in points)
        return still * record + (total - done) * step
