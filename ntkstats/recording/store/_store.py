"""The run store: one SQLite file a run, one transaction a record."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ntkstats.collectors import Field
from ntkstats.errors import ExistingRunError, StoreError
from ntkstats.recording.store import _lock, _schema
from ntkstats.recording.store._arrays import encode
from ntkstats.recording.store._json import plain

SUFFIX = ".sqlite"
_BUSY_SECONDS = 30.0  # how long to wait for somebody who reads or writes the same file


class StoredField(NamedTuple):
    """A field, the step axis it belongs to, and who gave it: a collector or the loop."""

    field: Field
    axis: str
    origin: str


class Row(NamedTuple):
    """One record: everything measured at one step."""

    step: int
    axes: tuple[str, ...]
    time: float
    duration: float
    arrays: Mapping[str, np.ndarray]


class Failure(NamedTuple):
    """Something that could not be measured or written."""

    step: int | None
    time: float
    stage: str
    error: str
    message: str


class Stored(NamedTuple):
    """What a run says about itself."""

    meta: dict[str, Any]
    fields: dict[str, StoredField]


def store_path(path: str | os.PathLike[str]) -> Path:
    """The file of a run: ``runs/mine`` is ``runs/mine.sqlite``.

    Raises
    ------
    StoreError
        The path is empty or not a path.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        msg = f"a run needs the path of its file, got {path!r}; give one such as 'runs/first'"
        raise StoreError(msg)
    file = Path(path).expanduser()
    if not file.name:
        msg = f"{path!r} names a folder; add the name of the run, such as 'runs/first'"
        raise StoreError(msg)
    return file if file.suffix == SUFFIX else file.with_name(file.name + SUFFIX)


class Store:
    """The one writer of a run.

    Opening creates the file (or continues it) and takes its lock; `begin` states what the run
    is; `write` returns once a record is on disk. After an error the file holds every earlier
    record and can be written again.

    Parameters
    ----------
    path
        As in `store_path`; missing folders are created.
    resume
        False refuses a file that holds records, True continues it, ``"takeover"`` also takes it
        from an owner that cannot be asked whether it still runs.

    Raises
    ------
    StoreError
        The path cannot be written, holds something else, or another process writes it.
    ExistingRunError
        The file holds records and ``resume`` is False.
    SchemaVersionError
        The file was written by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool | str = False) -> None:
        self.path = store_path(path)
        self.attempt: int | None = None
        self._me = _lock.this_process()
        self._from_step: int | None = None
        self._next_field = 0
        with explain(self.path, "create"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(self.path, "rwc")
        try:
            with explain(self.path, "open"):
                # Also syncs the folder, so that a power cut cannot undo a committed record.
                self._connection.execute("PRAGMA synchronous = EXTRA")
                with self._transaction():
                    self._claim(resume)
                # Only now is the file known to be ours; write-ahead logs fail on network disks.
                self._connection.execute("PRAGMA journal_mode = DELETE")
        except BaseException:
            self._connection.close()
            raise

    def _claim(self, resume: bool | str) -> None:
        db = self._connection
        if _schema.is_blank(db):
            _schema.create(db)
        else:
            version = _schema.version_of(db, self.path)
            records = db.execute("SELECT count(*) FROM records").fetchone()[0]
            if records and not resume:
                msg = (
                    f"{self.path} already holds a run of {records} records, and nothing is ever "
                    f"overwritten; choose another path, or continue it with resume=True"
                )
                raise ExistingRunError(msg)
            _lock.take(db, self._me, self.path, force=resume == "takeover")
            if records:
                _schema.migrate(db, version)
            else:  # a run that died before its first record has nothing to lose
                _schema.clear(db)
                _schema.create(db)
        _lock.take(db, self._me, self.path, force=True)

    def stored(self) -> Stored | None:
        """What the file says about the run so far; None if the run is new."""
        with explain(self.path, "read"):
            stored = read_stored(self._connection)
        return stored if stored.meta else None

    def begin(
        self,
        meta: Mapping[str, Any],
        fields: Sequence[StoredField],
        *,
        facts: Mapping[str, Any],
        from_step: int,
    ) -> None:
        """Start an attempt at ``from_step``; a new run also stores what it is.

        The rows of earlier attempts at or after ``from_step`` count as superseded from the first
        record of this attempt on.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with explain(self.path, "write"), self._transaction():
            db = self._connection
            _lock.check(db, self._me, self.path)
            if not db.execute("SELECT count(*) FROM meta").fetchone()[0]:
                rows = [(key, json.dumps(value)) for key, value in meta.items()]
                db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
                self._add_fields(fields)
            db.execute("UPDATE attempts SET status = 'killed' WHERE status = 'running'")
            cursor = db.execute(
                "INSERT INTO attempts (started, status, facts) VALUES (?, 'running', ?)",
                (now, json.dumps(dict(facts))),
            )
        self.attempt = cursor.lastrowid
        self._from_step = from_step

    def write(
        self,
        rows: Sequence[Row] = (),
        *,
        fields: Sequence[StoredField] = (),
        failures: Sequence[Failure] = (),
    ) -> None:
        """Commit rows, new fields and failures together; returns when they are on disk."""
        with explain(self.path, "write"), self._transaction():
            db = self._connection
            _lock.check(db, self._me, self.path)
            self._add_fields(fields)
            for row in rows:
                self._add_row(row)
            if rows:
                db.execute(
                    "UPDATE attempts SET from_step = ? WHERE id = ? AND from_step IS NULL",
                    (self._from_step, self.attempt),
                )
            db.executemany(
                "INSERT INTO failures (attempt, step, time, stage, error, message) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [(self.attempt, *failure) for failure in failures],
            )

    def _add_fields(self, fields: Sequence[StoredField]) -> None:
        self._connection.executemany(
            "INSERT INTO fields (name, axis, origin, spec) VALUES (?, ?, ?, ?)",
            [
                (entry.field.name, entry.axis, entry.origin, field_to_json(entry.field))
                for entry in fields
            ],
        )

    def _add_row(self, row: Row) -> None:
        db = self._connection
        inexact = [a for a in row.arrays.values() if a.dtype.kind in "fc"]
        finite = all(bool(np.isfinite(a).all()) for a in inexact)
        record = db.execute(
            "INSERT INTO records (attempt, step, axes, time, duration, finite) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (self.attempt, row.step, json.dumps(row.axes), row.time, row.duration, int(finite)),
        ).lastrowid
        db.executemany(
            "INSERT INTO arrays VALUES (?, ?, ?, ?, ?, ?)",
            ((record, name, *part) for name, array in row.arrays.items() for part in encode(array)),
        )

    def end(self, status: str, facts: Mapping[str, Any] | None = None) -> None:
        """State how the attempt ended, give the lock back and close the file.

        ``facts`` are added to those that the attempt began with.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with explain(self.path, "write"), self._transaction():
            _lock.check(self._connection, self._me, self.path)
            self._connection.execute(
                "UPDATE attempts SET status = ?, ended = ? WHERE id = ?",
                (status, now, self.attempt),
            )
            if facts:
                self._connection.execute(
                    "UPDATE attempts SET facts = json_patch(facts, ?) WHERE id = ?",
                    (json.dumps(dict(facts)), self.attempt),
                )
            _lock.release(self._connection, self._me)
        self._connection.close()

    def close(self) -> None:
        """Close the file if it is open, and leave it as well as possible; never raises."""
        if os.getpid() != self._me.pid:  # a forked child must leave its parent's lock alone
            return
        with suppress(StoreError):
            self.end("closed")
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk has already rolled back
                db.execute("ROLLBACK")
            raise


def connect(file: Path, mode: str) -> sqlite3.Connection:
    """Open ``file``; ``mode`` is "ro", "rw" or "rwc" (create)."""
    return sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,  # transactions are written out
        check_same_thread=False,  # a recorder may move to another thread, though not be shared
    )


@contextmanager
def explain(path: Path, verb: str) -> Iterator[None]:
    """Turn errors of SQLite and the file system into StoreErrors that say what to do."""
    try:
        yield
    except StoreError:
        raise
    except (sqlite3.Error, OSError) as error:
        msg = f"cannot {verb} {path}: {error}; {_remedy(error)}"
        raise StoreError(msg) from error


def _remedy(error: Exception) -> str:
    primary = getattr(error, "sqlite_errorcode", -1) & 0xFF  # without the extended bits
    return {
        sqlite3.SQLITE_FULL: "free some disk space (earlier records are safe)",
        sqlite3.SQLITE_BUSY: "another process holds the file; try again when it is done",
        sqlite3.SQLITE_NOTADB: "it is not an SQLite file; give the path of a run",
        sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a copy",
        sqlite3.SQLITE_READONLY: "make the file and its folder writable",
        sqlite3.SQLITE_TOOBIG: "the record is too large for one row",
    }.get(primary, "check that its folder exists and may be written")


def read_stored(connection: sqlite3.Connection) -> Stored:
    """What a run says about itself."""
    meta = {key: json.loads(text) for key, text in connection.execute("SELECT * FROM meta")}
    rows = connection.execute("SELECT name, axis, origin, spec FROM fields ORDER BY position")
    fields = {
        name: StoredField(field_from_json(name, spec), axis, origin)
        for name, axis, origin, spec in rows
    }
    return Stored(meta, fields)


def field_to_json(field: Field) -> str:
    """A field without its name, as JSON."""
    spec = plain(field, f"field {field.name}")
    del spec["name"]
    return json.dumps(spec)


def field_from_json(name: str, text: str) -> Field:
    """The field that `field_to_json` was given."""
    spec = json.loads(text)
    coords = {dim: tuple(labels) for dim, labels in spec.pop("coords").items()}
    dims, shape = tuple(spec.pop("dims")), tuple(spec.pop("shape"))
    return Field(name, dims=dims, shape=shape, coords=coords, **spec)


def failure(
    step: int | None, stage: str, error: BaseException, folder: Path | None = None
) -> Failure:
    """An exception as a failure of this moment; the folder of the run is left out of it."""
    message = str(error) if folder is None else str(error).replace(f"{folder}{os.sep}", "")
    return Failure(step, time.time(), stage, type(error).__name__, message[:4000])
