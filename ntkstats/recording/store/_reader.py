"""Stored runs as labelled Datasets."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntkstats.errors import NtkStatsError, RunNotFoundError
from ntkstats.recording.live._groups import MEMBER, STEP
from ntkstats.recording.store import _lock, _schema
from ntkstats.recording.store._arrays import decode
from ntkstats.recording.store._store import (
    SUFFIX,
    Stored,
    StoredField,
    connect,
    explain,
    read_stored,
    store_path,
)


class RunInfo(NamedTuple):
    """One line about a stored run.

    Attributes
    ----------
    path
        Its file.
    run_id
        Unique id.
    created
        UTC time, ISO 8601.
    status
        ``"finished"``, ``"closed"``, ``"interrupted"``, ``"killed"`` or ``"running"``.
    records
        How many records are not superseded.
    last_step
        Step of the last one; None if there is none.
    """

    path: Path
    run_id: str
    created: str
    status: str
    records: int
    last_step: int | None


class Record(NamedTuple):
    """One record without its arrays."""

    id: int
    attempt: int
    step: int
    time: float
    duration: float
    finite: int


class _Attempt(NamedTuple):
    id: int
    started: str
    ended: str | None
    status: str
    from_step: int | None
    facts: dict[str, Any]


def open_run(path: str | os.PathLike[str], *, attempts: str | int = "latest") -> xr.Dataset:
    """A stored run as an xarray Dataset, also while it is still being written.

    Variables that follow the recorder's schedule have the axis ``step``; those of another
    schedule have an axis of their own, such as ``step_every_10``. Each step axis has the
    coordinates ``wall_time`` (seconds since the run was created) and ``record_seconds`` (time
    that the measurement took), with the same suffix. Ensembles have an axis ``member``. Where
    a record lacks a variable it is NaN.

    Parameters
    ----------
    path
        As given to the `Recorder`, with or without ``.sqlite``.
    attempts
        ``"latest"`` leaves out rows that a resumed run superseded; ``"all"`` shows them too, with
        a coordinate ``attempt``; a number shows that attempt alone.

    Returns
    -------
    xarray.Dataset
        Its attributes say what the run is: config, seed, versions, device, git revision, probes,
        attempts, failures, steps with values that are not finite.

    Raises
    ------
    RunNotFoundError
        There is no run at that path, or no such attempt.
    StoreError
        The file is no run or is damaged.
    SchemaVersionError
        It was written by a newer version.
    """
    with opened(path) as (file, db):
        stored = stored_in(db, file)
        history = history_in(db)
        records = visible_in(db, history, attempts, file)
        arrays = _arrays(db, {record.id for record in records})
        attrs = attrs_in(db, stored, history, records)
    return _dataset(stored, records, arrays, attrs, with_attempt=attempts == "all")


def list_runs(folder: str | os.PathLike[str] = ".") -> tuple[RunInfo, ...]:
    """All runs in a folder and below, oldest first; other files are passed over.

    Raises
    ------
    RunNotFoundError
        There is no such folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        msg = f"there is no folder {root}; give the folder that holds the runs"
        raise RunNotFoundError(msg)
    found = []
    for file in sorted(root.rglob(f"*{SUFFIX}")):
        try:
            found.append(_info(file))
        except NtkStatsError:  # not a run, damaged, or without a record yet
            continue
    return tuple(sorted(found, key=lambda info: (info.created, info.path)))


def _info(path: Path) -> RunInfo:
    with opened(path) as (file, db):
        meta = stored_in(db, file).meta
        history = history_in(db)
        records = visible_in(db, history, "latest", file)
        last = records[-1].step if records else None
        status = status_in(db, history)
        return RunInfo(file, meta["run_id"], meta["created"], status, len(records), last)


@contextmanager
def opened(
    path: str | os.PathLike[str], *, blank: bool = False
) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """The file of a run and a connection that sees one moment of it; a blank one if allowed."""
    file = store_path(path)
    if not file.is_file():
        raise RunNotFoundError(_not_found(file))
    with explain(file, "read"), closing(_connect(file)) as db:
        if _schema.is_blank(db):
            if not blank:
                raise RunNotFoundError(_no_record(file))
            yield file, db
            return
        version = _schema.version_of(db, file)
        if version < _schema.VERSION:  # brought up to date in memory; the file stays as it is
            copy = sqlite3.connect(":memory:", isolation_level=None)
            db.backup(copy)
            _schema.migrate(copy, version)
            with closing(copy):
                yield file, copy
            return
        db.execute("BEGIN")
        yield file, db
        db.execute("COMMIT")


def _connect(file: Path) -> sqlite3.Connection:
    # A run that was killed in the middle of a record has to be rolled back, which writes.
    db = connect(file, "rw" if os.access(file, os.W_OK) else "ro")
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _not_found(file: Path) -> str:
    names = sorted(other.name for other in file.parent.glob(f"*{SUFFIX}"))
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.4) or names[:5]
    there = f"in that folder: {', '.join(near)}" if near else "there is no run in that folder"
    return f"there is no run at {file}; {there}"


def _no_record(file: Path) -> str:
    return f"{file} holds no record yet; a run is stored with its first record"


def stored_in(db: sqlite3.Connection, file: Path) -> Stored:
    stored = read_stored(db)
    if not stored.meta:
        raise RunNotFoundError(_no_record(file))
    return stored


def history_in(db: sqlite3.Connection) -> list[_Attempt]:
    rows = db.execute(
        "SELECT id, started, ended, status, from_step, facts FROM attempts ORDER BY id"
    )
    return [
        _Attempt(id, started, ended, status, from_step, json.loads(facts))
        for id, started, ended, status, from_step, facts in rows
    ]


def status_in(db: sqlite3.Connection, history: Sequence[_Attempt]) -> str:
    """Status of the run; one that nobody writes any more was killed."""
    if history[-1].status != "running":
        return history[-1].status
    owner = _lock.owner_of(db)
    return "running" if owner is not None and not _lock.is_dead(owner) else "killed"


def visible_in(
    db: sqlite3.Connection, history: Sequence[_Attempt], attempts: str | int, file: Path
) -> list[Record]:
    """The records to show, in order of attempt and step."""
    rows = db.execute(
        "SELECT id, attempt, step, time, duration, finite FROM records ORDER BY attempt, step"
    )
    records = [Record(*row) for row in rows]
    if attempts == "all":
        return records
    if attempts == "latest":
        # Attempt a ends where the first later attempt with a record begins.
        ends = {a.id: _superseded_from(a.id, history) for a in history}
        return sorted(
            (r for r in records if r.step < ends[r.attempt]), key=lambda record: record.step
        )
    known = [attempt.id for attempt in history]
    if attempts not in known:
        msg = f"{file} has no attempt {attempts!r}; give 'latest', 'all' or one of {known}"
        raise RunNotFoundError(msg)
    return [record for record in records if record.attempt == attempts]


def _superseded_from(attempt: int, history: Sequence[_Attempt]) -> float:
    later = [a.from_step for a in history if a.id > attempt and a.from_step is not None]
    return min(later, default=np.inf)


def _arrays(db: sqlite3.Connection, wanted: set[int]) -> dict[str, dict[int, np.ndarray]]:
    """``{variable: {record: array}}``."""
    found: dict[str, dict[int, np.ndarray]] = {}
    rows = db.execute(
        "SELECT record, name, dtype, shape, data FROM arrays ORDER BY record, name, part"
    )
    for (record, name), group in itertools.groupby(rows, key=lambda row: row[:2]):
        if record in wanted:
            parts = list(group)
            _, _, dtype, shape, _ = parts[0]
            array = decode(dtype, shape, [part[-1] for part in parts])
            found.setdefault(name, {})[record] = array
    return found


def attrs_in(
    db: sqlite3.Connection,
    stored: Stored,
    history: Sequence[_Attempt],
    records: Sequence[Record],
) -> dict[str, Any]:
    meta = dict(stored.meta)
    status = status_in(db, history)
    failures = db.execute(
        "SELECT attempt, step, stage, error, message FROM failures ORDER BY id"
    ).fetchall()
    names = ("attempt", "step", "stage", "error", "message")
    return {
        **meta.pop("measurement"),
        **meta,
        **history[-1].facts,
        "status": status,
        "finished": status == "finished",
        "attempts": [a._asdict() for a in history],
        "failures": [dict(zip(names, row, strict=True)) for row in failures],
        "non_finite_steps": [record.step for record in records if not record.finite],
        "schema_version": _schema.VERSION,
    }


def _dataset(
    stored: Stored,
    records: Sequence[Record],
    arrays: Mapping[str, Mapping[int, np.ndarray]],
    attrs: dict[str, Any],
    *,
    with_attempt: bool,
) -> xr.Dataset:
    created = datetime.fromisoformat(attrs["created"]).timestamp()
    fields = stored.fields
    axes = list(dict.fromkeys([STEP, *(entry.axis for entry in fields.values())]))
    coords: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    inner = _InnerAxes()
    for axis in axes:
        own = [name for name, entry in fields.items() if entry.axis == axis and name in arrays]
        rows = [r for r in records if any(r.id in arrays[name] for name in own)]
        if not own:
            continue
        coords |= _axis_coords(axis, rows, created, with_attempt=with_attempt)
        for name in own:
            values = _stack(arrays[name], rows)
            dims = inner.dims(fields[name], values.shape[1:])
            variables[name] = ((axis, *dims), values, _variable_attrs(fields[name]))
    coords |= inner.coords
    seeds = attrs["seed"]
    if isinstance(seeds, list) and any(MEMBER in v[0] for v in variables.values()):
        coords["seed"] = (MEMBER, np.asarray(seeds), {"long_name": "seed of the member"})
    return xr.Dataset(variables, coords, attrs)


def _axis_coords(
    axis: str, rows: Sequence[Record], created: float, *, with_attempt: bool
) -> dict[str, Any]:
    suffix = axis.removeprefix(STEP)
    times = np.array([row.time - created for row in rows], np.float64)
    seconds = np.array([row.duration for row in rows], np.float64)
    coords: dict[str, Any] = {
        axis: (
            axis,
            np.array([row.step for row in rows], np.int64),
            {"long_name": "training step", "units": "1"},
        ),
        f"wall_time{suffix}": (
            axis,
            times,
            {"long_name": "time since the run was created", "units": "s"},
        ),
        f"record_seconds{suffix}": (
            axis,
            seconds,
            {"long_name": "time taken by the measurement", "units": "s"},
        ),
    }
    if with_attempt:
        coords[f"attempt{suffix}"] = (axis, np.array([row.attempt for row in rows], np.int64))
    return coords


def _stack(arrays: Mapping[int, np.ndarray], rows: Sequence[Record]) -> np.ndarray:
    """Rows along a new leading axis; where one is missing, NaN."""
    present = [arrays[row.id] for row in rows if row.id in arrays]
    dtype = np.result_type(*present)
    if len(present) < len(rows) and dtype.kind in "biu":
        dtype = np.dtype(np.float64)  # integers have no NaN
    shape = (len(rows), *present[0].shape)
    values = np.full(shape, np.nan if dtype.kind in "fc" else 0, dtype)
    for i, row in enumerate(rows):
        if row.id in arrays:
            values[i] = arrays[row.id]
    return values


def _variable_attrs(entry: StoredField) -> dict[str, Any]:
    field = entry.field
    return {**field.attrs, "long_name": field.long_name or field.name, "units": field.units}


class _InnerAxes:
    """Axes of the entries: one name must mean one size and one set of labels."""

    def __init__(self) -> None:
        self.coords: dict[str, Any] = {}
        self._meaning: dict[str, tuple[int, tuple[str, ...]]] = {}

    def dims(self, entry: StoredField, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Names for the axes of one variable; a clash is solved by the variable's name."""
        names = []
        for name, size in zip(entry.field.dims, shape, strict=True):
            labels = tuple(entry.field.coords.get(name, ()))
            if self._meaning.setdefault(name, (size, labels)) != (size, labels):
                name = f"{name}_{entry.field.name}"
                self._meaning[name] = (size, labels)
            if labels:
                self.coords[name] = (name, np.asarray(labels))
            names.append(name)
        return tuple(names)
