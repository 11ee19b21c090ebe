"""Where records and failures go: the store, the mirrors, and one warning."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ntkstats.errors import RecordingError, StoreError
from ntkstats.recording._warn import warn
from ntkstats.recording.mirrors._sinks import Mirrors, Sink
from ntkstats.recording.store._store import Failure, Row, Store, StoredField, failure


class Report(NamedTuple):
    """What a recorder did.

    Attributes
    ----------
    path
        File of the run; None on processes that do not write.
    records, failures
        Records written and failures noted by this recorder.
    status
        ``"finished"``, ``"closed"`` (without a final record), ``"interrupted"`` (by an
        exception), or ``"running"``.
    skipped
        Records left out to stay within `RecordAt.budget`.
    """

    path: Path | None
    records: int
    failures: int
    status: str
    skipped: int = 0

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped to stay within the budget" if self.skipped else ""
        return (
            f"{self.status}: {self.records} records, {self.failures} failures{skipped} "
            f"in {self.path}"
        )


class Journal:
    """Writes rows and failures; only rows raise, failures never do unless ``strict``.

    Rows may be written from another thread than the training loop's; everything that warns or
    raises for the user's eyes (`fail`, `announce`, `end`) belongs to the loop's.

    Parameters
    ----------
    store
        None on processes that do not write.
    sinks
        Mirrors of the scalars.
    strict
        Raise failures instead of warning about the first one.
    """

    def __init__(self, store: Store | None, sinks: Sequence[Sink], *, strict: bool) -> None:
        self.store = store
        self.records = 0
        self.failures = 0
        self.skipped = 0
        self.status = "running"
        self._strict = strict
        self._warned = False
        self._guard = threading.Lock()  # the store has one connection
        self._labels: list[StoredField] = []  # not in the store yet
        self._pending: list[Failure] = []  # what a full disk would not take
        self._mirrors = Mirrors(sinks if store is not None else ())
        self._pid = os.getpid()

    def add_fields(self, fields: Sequence[StoredField]) -> None:
        """Have new fields written with the next rows."""
        self._labels += fields

    def write(self, rows: Sequence[Row], *, per_member: Container[str] = ()) -> None:
        """Commit the rows with new fields, then mirror their scalars.

        The names in ``per_member`` have one number a member.

        Raises
        ------
        StoreError
            Nothing of it was written.
        """
        self._transact(rows)
        self.records += len(rows)
        for row in rows:
            self._mirrors.write(row.step, numbers_of(row, per_member))

    def fail(self, step: int | None, stage: str, error: Exception) -> None:
        """Note that something could not be measured or written.

        Raises
        ------
        RecordingError
            If strict.
        """
        self.note(step, stage, error)
        self._flush()
        where = "" if step is None else f" at step {step}"
        cause = f"could not {stage}{where}: {type(error).__name__}: {error}"
        if self._strict:
            raise RecordingError(cause) from error
        if not self._warned:
            self._warned = True
            kept = "this and later failures are listed in the stored run"
            rest = kept if self.status == "running" else "nothing more is recorded"
            warn(f"{cause}. The loop goes on, and {rest}; strict=True raises instead")

    def note(self, step: int | None, stage: str, error: Exception) -> None:
        """Keep a failure for the next transaction, without a word."""
        self.failures += 1
        folder = None if self.store is None else self.store.path.parent
        self._pending.append(failure(step, stage, error, folder))

    @property
    def has_notices(self) -> bool:
        """Whether `announce` has something to say."""
        return bool(self._mirrors.notices)

    def announce(self) -> None:
        """Warn about the mirrors that have failed."""
        while self._mirrors.notices:
            warn(self._mirrors.notices.popleft())

    def end(self, status: str, facts: Mapping[str, Any] | None = None) -> Report:
        """State how it ended and close everything; once."""
        if self.status == "running":
            self.status = status
            self._flush()
            try:
                if self.store is not None:
                    self.store.end(status, facts)
            except StoreError as error:
                self.fail(None, "close the run", error)
            finally:
                if self.store is not None:
                    self.store.close()
                self._mirrors.close()
                self.announce()
        return self.report()

    def abandon(self) -> None:
        """Close a run that nobody will end; never raises and says nothing."""
        # A forked child must leave its parent's run alone.
        if self.status == "running" and os.getpid() == self._pid:
            with suppress(RecordingError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.end("closed")

    def report(self) -> Report:
        """What was done so far."""
        path = None if self.store is None else self.store.path
        return Report(path, self.records, self.failures, self.status, self.skipped)

    def _transact(self, rows: Sequence[Row] = ()) -> None:
        """Commit rows with everything that an earlier transaction could not take."""
        if self.store is None:
            return
        with self._guard:
            labels, failures = list(self._labels), list(self._pending)
            self.store.write(rows, fields=labels, failures=failures)
            # The loop may have noted failures in the meantime.
            del self._labels[: len(labels)], self._pending[: len(failures)]

    def _flush(self) -> None:
        if self._pending:
            with suppress(StoreError):  # they are tried again with the next record
                self._transact()


def numbers_of(row: Row, per_member: Container[str] = ()) -> dict[str, float]:
    """The scalars of a row; those of member i are called ``name/i``."""
    numbers: dict[str, float] = {}
    for name, array in row.arrays.items():
        if array.dtype.kind == "c" or array.ndim > 1:
            continue
        if array.ndim == 0:
            numbers[name] = float(array)
        elif name in per_member:
            numbers |= {f"{name}/{i}": float(value) for i, value in enumerate(array)}
    return numbers
