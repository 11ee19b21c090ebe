"""When to record, and what may be raised into the training loop."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ntkstats.errors import NtkStatsError, RecordingError, StoreError
from ntkstats.models import without_torch
from ntkstats.recording._warn import warn
from ntkstats.recording.live._budget import Budget
from ntkstats.recording.live._groups import Group, union
from ntkstats.recording.live._journal import Journal, Report
from ntkstats.recording.live._order import as_step, check_order
from ntkstats.recording.live._outbox import Outbox
from ntkstats.recording.live._session import Session


class Conductor:
    """Turns visits of the training loop into records.

    Only the first visit raises what does not fit together, since nothing is lost yet; everything
    later is noted as a failure (and raised only if the journal is strict).

    Parameters
    ----------
    groups
        The collectors by schedule.
    session
        Measures.
    journal, outbox
        Write.
    """

    def __init__(
        self, groups: Sequence[Group], session: Session, journal: Journal, outbox: Outbox
    ) -> None:
        self._groups = groups
        self._certain = union(groups)
        self._budget = Budget(groups)
        self._session = session
        self._journal = journal
        self._outbox = outbox
        self._pid = os.getpid()
        self.started = False
        """Whether the first state was seen."""
        self.seen = -1
        """The last step that the loop has called with."""
        self.step_unknown = False
        """Whether the last records came from a scan that recorded some of its steps only."""

    def due(self, step: int) -> bool:
        """Whether a visit at that step would record something."""
        return not self.started or self._certain(step) or self._budget.would(step)

    def call(self, step: int, obj: Any, extras: Mapping[str, Any]) -> None:
        """Record ``obj`` if the step is due; quick if it is not."""
        allowed: frozenset[str] = frozenset()
        if self.started:
            try:
                number = operator.index(step)
            except TypeError:
                pass  # said properly by visit
            else:
                self.seen = number
                if number == self._session.recorded:
                    return
                allowed = self._budget.allowed(number)
                if not allowed and not self._certain(number) and not self._outbox.has_lost:
                    return
        self.visit(step, obj, extras, allowed=allowed)

    def visit(
        self,
        step: int,
        obj: Any,
        extras: Mapping[str, Any],
        *,
        allowed: frozenset[str] = frozenset(),
        final: bool = False,
    ) -> None:
        """Record the groups that are due and those on the ``allowed`` axes; at the ends, all."""
        if self._is_closed(step):
            return
        self.settle()
        number: int | None = None
        missing: Exception | None = None
        try:
            number = as_step(step)
            extras = without_torch(dict(extras))
            check_order(number, self._session.recorded, first=not self.started)
            if not (final or self.started):  # a run that goes on has had its first record
                allowed |= self._budget.allowed(number)
            everything = final or not (self.started or self._session.continues(number))
            due = [g for g in self._groups if everything or g.axis in allowed or g.at.due(number)]
            due = [] if number == self._session.recorded else due
            if due or not self.started:  # what does not fit together is found at the first call
                missing = self._record(number, obj, due, extras)
        except Exception as error:
            fits_not = isinstance(error, NtkStatsError) or not self._session.is_bound
            if not self.started and fits_not:
                raise
            missing = error
        self.started = True
        if number is not None:
            self.seen, self.step_unknown = number, False
        if missing is not None:
            stage = "write" if isinstance(missing, StoreError) else "measure"
            self._journal.fail(number, stage, missing)
        self._journal.announce()
        self._session.say()

    def extend(self, unstacked: Callable[[], tuple[Sequence[int], Any]]) -> None:
        """Record what ``unstacked()`` gives: steps, and their arrays."""
        if self._is_closed(None):
            return
        self._outbox.drain()
        self.settle()
        try:
            steps, arrays = unstacked()
            if steps:
                # Chunks may overlap; what is stored already is passed over.
                at = steps[-1] if self.started else steps[0]
                check_order(at, self._session.recorded, first=not self.started)
                self._session.extend(steps, arrays)
                self.seen = steps[-1]
                self.step_unknown = len(steps) > 1 and steps[-1] - steps[-2] != 1
        except Exception as error:
            if not self.started and isinstance(error, NtkStatsError):
                raise
            self._journal.fail(None, "extend the run", error)
        self.started = True

    def settle(self) -> None:
        """Say what was lost in the background, and go on from the last record that was not."""
        self._journal.announce()
        lost = self._outbox.lost()
        if lost:
            self._session.rewind()
        for entry in lost:
            self._journal.fail(*entry)

    def flush(self) -> Report:
        """Return when everything is on disk, or said to be lost."""
        if self._is_foreign():
            return self._journal.report()
        self._outbox.drain()
        self.settle()
        return self.report()

    def end(self, status: str) -> Report:
        """Write what waits, state how it ended and close everything; once."""
        if self._is_foreign():
            return self._journal.report()
        self._outbox.drain()
        try:
            self.settle()
        finally:
            self._journal.skipped = self._budget.skipped
            self._journal.end(status, self._budget.facts())
            self._outbox.close()
        return self._journal.report()

    def report(self) -> Report:
        """What was done so far."""
        self._journal.skipped = self._budget.skipped
        return self._journal.report()

    def _record(
        self, step: int, obj: Any, due: Sequence[Group], extras: Mapping[str, Any]
    ) -> Exception | None:
        if not self.started:
            return self._session.record(step, obj, due, extras, complete=True, wait=True)
        purses = self._budget.among(due)
        if purses:
            return self._session.record_paid(step, obj, due, extras, purses)
        return self._session.record(step, obj, due, extras, complete=False, wait=False)

    def _is_foreign(self) -> bool:
        """Whether this is a forked child, which must leave its parent's run alone; it is told."""
        if os.getpid() == self._pid:
            return False
        warn(
            f"the recorder belongs to process {self._pid}, and this is a fork of it; nothing is "
            f"recorded here. Make a recorder of its own in each process"
        )
        return True

    def _is_closed(self, step: int | None) -> bool:
        if self._is_foreign():
            return True
        if self._journal.status == "running":
            return False
        self._journal.fail(step, "record", RecordingError("the recorder is closed"))
        return True
