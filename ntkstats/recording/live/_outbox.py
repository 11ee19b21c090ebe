"""Records on their way to the store, so that the training loop need not wait for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import jax

from ntkstats.errors import StoreError
from ntkstats.recording.live._background import Background
from ntkstats.recording.live._journal import Journal
from ntkstats.recording.store._arrays import to_numpy
from ntkstats.recording.store._store import Row, StoredField
from ntkstats.typing import PyTree

_WAITING = 16  # records that may wait for the disk
_GATHER = 0.05  # seconds in which more may come, to be written together
_MEASURING = 2  # records that an accelerator may be busy with


class Draft(NamedTuple):
    """A record on its way: measured, or being measured, and not yet in the store.

    Attributes
    ----------
    step, axes, time
        As in a `Row`.
    start
        When the measurement began (`time.perf_counter`); None if that is not known.
    arrays
        ``{field: array}``, on the device or on the host.
    labels
        Fields that no earlier record has.
    per_member
        Names with one number a member.
    carry
        What the collectors remember after it.
    seconds
        How long the measurement took; None if that is known only once the numbers are fetched.
    """

    step: int
    axes: tuple[str, ...]
    time: float
    start: float | None
    arrays: Mapping[str, Any]
    labels: Sequence[StoredField] = ()
    per_member: Container[str] = ()
    carry: PyTree = None
    seconds: float | None = None


class Lost(NamedTuple):
    """A record that could not be measured or written."""

    step: int
    stage: str
    error: Exception


class Outbox:
    """Takes records as soon as the device has been told to measure them, and writes them in order.

    Records that wait when the disk is free go into one transaction. What could not be measured
    or written is kept until the training loop comes by: warnings and exceptions belong there.

    Parameters
    ----------
    journal
        Where records go.
    background
        False writes every record before `put` returns.
    """

    def __init__(self, journal: Journal, *, background: bool) -> None:
        self.safe: Draft | None = None
        """The last record that is in the store."""
        self._journal = journal
        self._background = Background() if background else None
        self._waiting: deque[Draft] = deque()
        self._measuring: deque[Draft] = deque()
        self._lost: deque[Lost] = deque()
        self._slots = threading.Semaphore(_WAITING)
        self._hurry = threading.Event()

    @property
    def has_lost(self) -> bool:
        """Whether `lost` has something to say."""
        return bool(self._lost)

    def write(self, drafts: Sequence[Draft]) -> None:
        """Write records after those before them, all in one transaction.

        Raises
        ------
        Exception
            One could not be measured or written; none is in the store.
        """
        self.drain()
        for draft in drafts:
            self._journal.add_fields(draft.labels)
        last = drafts[-1]
        self._journal.write([_row(draft) for draft in drafts], per_member=last.per_member)
        self.safe = last

    def put(self, draft: Draft) -> None:
        """Hand over a record; it is written in the background if there is one."""
        if self._background is None:
            self.write([draft])
            return
        if not self._slots.acquire(blocking=False):
            self._hurry.set()
            self._slots.acquire()
        if jax.default_backend() == "cpu":
            # Two programs with eigensolvers at once can wait for each other's threads for ever.
            draft = _waited_for(draft)
        else:
            self._measuring.append(draft)
        self._waiting.append(draft)
        self._background.submit(self._write_waiting)
        # A record being measured keeps the parameters that it is of on the device.
        while len(self._measuring) > _MEASURING:
            _waited_for(self._measuring.popleft())

    def drain(self) -> None:
        """Return when everything that was handed over is in the store, or lost."""
        if self._background is not None:
            self._hurry.set()
            self._background.drain()

    def lost(self) -> list[Lost]:
        """What was lost since this was last asked, and all that followed; nothing is left."""
        if not self._lost:
            return []
        self.drain()
        lost = list(self._lost)
        self._lost.clear()
        return lost

    def close(self) -> None:
        """Let the thread end once everything is written."""
        if self._background is not None:
            self._background.close()

    def abandon(self) -> None:
        """Write what waits and close a run that nobody will end; never raises."""
        self.drain()
        for entry in self.lost():
            self._journal.note(*entry)
        self._journal.abandon()
        self.close()

    def _write_waiting(self) -> None:
        """Write every draft that waits, and those that soon will; never raises."""
        if self._waiting:
            self._hurry.wait(_GATHER)
            self._hurry.clear()
        taken = 0
        ready: list[tuple[Draft, Row]] = []
        while self._waiting:
            draft = self._waiting.popleft()
            taken += 1
            self._journal.add_fields(draft.labels)
            try:
                ready.append((draft, _row(draft)))
            except Exception as error:
                self._lose(draft, error)
        if ready and self._commit(ready) is not None:
            for one in ready:  # one that cannot be written must not take the others along
                refused = self._commit([one])
                if refused is not None:
                    self._lose(one[0], refused)
        if taken:
            self._slots.release(taken)

    def _commit(self, ready: Sequence[tuple[Draft, Row]]) -> Exception | None:
        """One transaction; the error if it fails."""
        last = ready[-1][0]
        try:
            self._journal.write([row for _, row in ready], per_member=last.per_member)
        except Exception as error:
            return error
        self.safe = last
        return None

    def _lose(self, draft: Draft, error: Exception) -> None:
        stage = "write" if isinstance(error, StoreError) else "measure"
        self._lost.append(Lost(draft.step, stage, error))


def _waited_for(draft: Draft) -> Draft:
    """The draft once its numbers are there, with the time that took."""
    with suppress(Exception):  # said when it is to be written
        jax.block_until_ready(dict(draft.arrays))
    return draft._replace(seconds=_since(draft.start))


def _row(draft: Draft) -> Row:
    """The record on the host; waits for the device."""
    arrays = {name: to_numpy(name, value) for name, value in draft.arrays.items()}
    seconds = _since(draft.start) if draft.seconds is None else draft.seconds
    return Row(draft.step, draft.axes, draft.time, seconds, arrays)


def _since(start: float | None) -> float:
    return 0.0 if start is None else time.perf_counter() - start
