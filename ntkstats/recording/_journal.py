"""Where records and failures go: the store, the mirrors, and one warning."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from ntkstats.errors import RecordingError, StoreError
from ntkstats.recording._sinks import Mirrors, Sink
from ntkstats.recording._store import Failure, Row, Store, StoredField, failure
from ntkstats.recording._warn import warn


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
    """

    path: Path | None
    records: int
    failures: int
    status: str

    def __str__(self) -> str:
        return f"{self.status}: {self.records} records, {self.failures} failures in {self.path}"


class Journal:
    """Writes rows and failures; only rows raise, failures never do unless ``strict``.

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
        self.status = "running"
        self._strict = strict
        self._warned = False
        self._pending: list[Failure] = []  # what a full disk would not take
        self._mirrors = Mirrors(sinks if store is not None else ())

    def write(
        self,
        rows: Sequence[Row],
        fields: Sequence[StoredField] = (),
        *,
        per_member: Container[str] = (),
    ) -> None:
        """Commit the rows with new fields, then mirror their scalars.

        The names in ``per_member`` have one number a member.

        Raises
        ------
        StoreError
            Nothing of it was written.
        """
        if self.store is not None:
            self.store.write(rows, fields=fields, failures=self._pending)
            self._pending = []
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
        self.failures += 1
        folder = None if self.store is None else self.store.path.parent
        self._pending.append(failure(step, stage, error, folder))
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

    def end(self, status: str) -> Report:
        """State how it ended and close everything; once."""
        if self.status == "running":
            self.status = status
            self._flush()
            try:
                if self.store is not None:
                    self.store.end(status)
            except StoreError as error:
                self.fail(None, "close the run", error)
            finally:
                if self.store is not None:
                    self.store.close()
                self._mirrors.close()
        return self.report()

    def report(self) -> Report:
        """What was done so far."""
        path = None if self.store is None else self.store.path
        return Report(path, self.records, self.failures, self.status)

    def _flush(self) -> None:
        if self.store is None or not self._pending:
            return
        try:
            self.store.write(failures=self._pending)
        except StoreError:
            return  # they are tried again with the next record
        self._pending = []


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
