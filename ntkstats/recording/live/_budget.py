"""Which of the records that are wanted fit into their share of the wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ntkstats.recording.live._groups import Group


class Purse:
    """What one schedule with a budget may spend, and has spent.

    Attributes
    ----------
    skipped
        Records that were wanted and did not fit.
    spent
        Seconds that records took, compilation and the first of each kind not counted.
    """

    def __init__(self, group: Group, share: float, clock: Callable[[], float]) -> None:
        self.group = group
        self.share = share
        self.skipped = 0
        self.spent = 0.0
        self._clock = clock
        self._cost: float | None = None
        self._start: float | None = None

    def wants(self, step: int) -> bool:
        """Whether the step is to be recorded if it fits."""
        wanted = self.group.at.wanted
        return wanted is not None and wanted.due(step)

    def affords(self) -> bool:
        """Whether one more record stays within the share of the time up to its end."""
        if self._cost is None:
            return True
        return self.spent + self._cost <= self.share * (self.elapsed + self._cost)

    @property
    def elapsed(self) -> float:
        """Seconds since the cost of a record became known."""
        return 0.0 if self._start is None else self._clock() - self._start

    def learn(self, seconds: float) -> None:
        """What a record costs, before the first one that counts."""
        self._cost = seconds
        if self._start is None:
            self._start = self._clock()

    def charge(self, seconds: float) -> None:
        """Pay for a record; the first one tells the price and is free."""
        if self._start is None:
            self.learn(seconds)
            return
        self.spent += seconds
        # Half the weight on the newest: costs drift (a warm cache, a busy machine).
        self._cost = 0.5 * ((self._cost or seconds) + seconds)


class Budget:
    """The purses of a recorder's schedules; without any, nothing is ever computed.

    Parameters
    ----------
    groups
        All collectors by schedule.
    clock
        Seconds that only grow.
    """

    def __init__(
        self, groups: Sequence[Group], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.purses = tuple(
            Purse(group, group.at.share, clock) for group in groups if group.at.share is not None
        )

    def would(self, step: int) -> bool:
        """Whether a record at that step would be made now."""
        return any(purse.wants(step) and purse.affords() for purse in self.purses)

    def allowed(self, step: int) -> frozenset[str]:
        """Axes of the groups that are recorded at that step; the others that want it skip it."""
        axes = set()
        for purse in self.purses:
            if purse.wants(step) and not purse.group.at.due(step):
                if purse.affords():
                    axes.add(purse.group.axis)
                else:
                    purse.skipped += 1
        return frozenset(axes)

    def among(self, groups: Iterable[Group]) -> list[Purse]:
        """The purses that pay for a record of those groups."""
        axes = {group.axis for group in groups}
        return [purse for purse in self.purses if purse.group.axis in axes]

    @property
    def skipped(self) -> int:
        """Records left out so far."""
        return sum(purse.skipped for purse in self.purses)

    def facts(self) -> dict[str, Any]:
        """What was spent and skipped, for the stored run."""
        if not self.purses:
            return {}
        return {
            "budget": {
                purse.group.axis: {
                    "share": purse.share,
                    "record_seconds": round(purse.spent, 6),
                    "seconds": round(purse.elapsed, 6),
                    "skipped": purse.skipped,
                }
                for purse in self.purses
            }
        }
