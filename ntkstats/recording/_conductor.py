"""When to record, and what may be raised into the training loop."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ntkstats.errors import NtkStatsError, RecordingError, StoreError
from ntkstats.recording._budget import Budget
from ntkstats.recording._groups import Group, union
from ntkstats.recording._journal import Journal, Report
from ntkstats.recording._outbox import Outbox
from ntkstats.recording._session import Session


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
        self._started = False  # the first state was seen
        self.seen = -1
        """The last step that the loop has called with."""

    def due(self, step: int) -> bool:
        """Whether a visit at that step would record something."""
        return not self._started or self._certain(step) or self._budget.would(step)

    def call(self, step: int, obj: Any, extras: Mapping[str, Any]) -> None:
        """Record ``obj`` if the step is due; quick if it is not."""
        allowed: frozenset[str] = frozenset()
        if self._started:
            try:
                number = operator.index(step)
            except TypeError:
                pass  # said properly by visit
            else:
                self.seen = number
                allowed = self._budget.allowed(number)
                if not allowed and not self._certain(number) and not self._outbox.has_lost:
                    return
        self.visit(step, obj, extras, allowed=allowed, everything=not self._started)

    def visit(
        self,
        step: int,
        obj: Any,
        extras: Mapping[str, Any],
        *,
        allowed: frozenset[str] = frozenset(),
        everything: bool,
    ) -> None:
        """Record the groups that are due, those on the ``allowed`` axes, or all of them."""
        if self._is_closed(step):
            return
        self.settle()
        number: int | None = None
        missing: Exception | None = None
        try:
            number = _as_step(step)
            self._check_order(number)
            due = [g for g in self._groups if everything or g.axis in allowed or g.at.due(number)]
            if due and number != self._session.recorded:
                missing = self._record(number, obj, due, extras)
        except Exception as error:
            fits_not = isinstance(error, NtkStatsError) or not self._session.is_bound
            if not self._started and fits_not:
                raise
            missing = error
        self._started = True
        if number is not None:
            self.seen = number
        if missing is not None:
            stage = "write" if isinstance(missing, StoreError) else "measure"
            self._journal.fail(number, stage, missing)
        self._journal.announce()

    def extend(self, unstacked: Callable[[], tuple[Sequence[int], Any]]) -> None:
        """Record what ``unstacked()`` gives: steps, and their arrays."""
        if self._is_closed(None):
            return
        self._outbox.drain()
        self.settle()
        try:
            steps, arrays = unstacked()
            if steps:
                self._check_order(steps[0])
                self._session.extend(steps, arrays)
                self.seen = steps[-1]
        except Exception as error:
            if not self._started and isinstance(error, NtkStatsError):
                raise
            self._journal.fail(None, "extend the run", error)
        self._started = True

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
        self._outbox.drain()
        self.settle()
        return self.report()

    def end(self, status: str) -> Report:
        """Write what waits, state how it ended and close everything; once."""
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
        if not self._started:
            return self._session.record(step, obj, due, extras, complete=True, wait=True)
        purses = self._budget.among(due)
        if purses:
            return self._session.record_paid(step, obj, due, extras, purses)
        return self._session.record(step, obj, due, extras, complete=False, wait=False)

    def _check_order(self, step: int) -> None:
        if step < self._session.recorded:
            msg = (
                f"step {step} comes after step {self._session.recorded} was recorded; steps must "
                f"not decrease. Count updates over the whole run, or resume it in a new Recorder"
            )
            raise RecordingError(msg)

    def _is_closed(self, step: int | None) -> bool:
        if self._journal.status == "running":
            return False
        self._journal.fail(step, "record", RecordingError("the recorder is closed"))
        return True


def _as_step(step: Any) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        msg = f"step must be a non-negative integer, the number of updates so far; got {step!r}"
        raise RecordingError(msg)
    return number
