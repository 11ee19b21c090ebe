"""What a run is and its latest numbers, without reading its large arrays."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ntkstats.collectors import Field
from ntkstats.recording.live._groups import MEMBER
from ntkstats.recording.store import _lock, _schema
from ntkstats.recording.store._arrays import decode
from ntkstats.recording.store._reader import (
    Record,
    attrs_in,
    history_in,
    opened,
    stored_in,
    visible_in,
)
from ntkstats.recording.store._store import StoredField

_FAR_BACK = 50  # a field that so many records lack is not searched for any further


class Latest(NamedTuple):
    """The numbers of one record.

    Attributes
    ----------
    step
        Number of updates applied.
    wall_time
        Seconds, Unix time.
    record_seconds
        Time that the measurement took.
    values
        ``{field: ()}`` or ``(members,)``.
    """

    step: int
    wall_time: float
    record_seconds: float
    values: Mapping[str, np.ndarray]


class RunSummary(NamedTuple):
    """A run at a glance.

    Attributes
    ----------
    path
        Its file.
    attrs
        The attributes that `open_run` gives.
    fields
        What was recorded: dims, shapes, units.
    axes
        ``{field: step axis}``.
    steps
        ``{step axis: steps}`` of the records that are not superseded, integers ``(k,)``.
    superseded
        How many records a resumed run left behind.
    last
        ``{field: (step, value)}`` of the fields that are one number a step (and member).
    rows
        The latest records, oldest first.
    """

    path: Path
    attrs: dict[str, Any]
    fields: dict[str, Field]
    axes: dict[str, str]
    steps: dict[str, np.ndarray]
    superseded: int
    last: dict[str, tuple[int, np.ndarray]]
    rows: tuple[Latest, ...]


def summarise(path: str | os.PathLike[str], *, rows: int = 0) -> RunSummary:
    """A run at a glance, also while it is written; large arrays are not read.

    Parameters
    ----------
    path
        As for `open_run`.
    rows
        How many of the latest records to read.

    Raises
    ------
    RunNotFoundError, StoreError, SchemaVersionError
        As for `open_run`.
    """
    with opened(path) as (file, db):
        stored = stored_in(db, file)
        history = history_in(db)
        records = visible_in(db, history, "latest", file)
        attrs = attrs_in(db, stored, history, records)
        total = db.execute("SELECT count(*) FROM records").fetchone()[0]
        scalars = [name for name, entry in stored.fields.items() if _is_scalar(entry)]
        along = _along(db, stored.fields, records)
        last: dict[str, tuple[int, np.ndarray]] = {}
        for axis, found in along.items():
            own = [name for name in scalars if stored.fields[name].axis == axis]
            for record in found[: -1 - _FAR_BACK : -1]:
                new = _values(db, record.id, [name for name in own if name not in last])
                last |= {name: (record.step, value) for name, value in new.items()}
                if all(name in last for name in own):
                    break
        latest = tuple(
            Latest(r.step, r.time, r.duration, _values(db, r.id, scalars))
            for r in (records[-rows:] if rows else ())
        )
    return RunSummary(
        file,
        attrs,
        {name: entry.field for name, entry in stored.fields.items()},
        {name: entry.axis for name, entry in stored.fields.items()},
        {axis: np.array([r.step for r in found], np.int64) for axis, found in along.items()},
        total - len(records),
        {name: last[name] for name in scalars if name in last},
        latest,
    )


def is_written(path: str | os.PathLike[str]) -> bool:
    """Whether somebody has the run open for writing; a dead process on this machine does not.

    Raises
    ------
    RunNotFoundError, StoreError, SchemaVersionError
        There is no such file, or it is no run.
    """
    with opened(path, blank=True) as (_, db):
        if _schema.is_blank(db):
            return False
        owner = _lock.owner_of(db)
        return owner is not None and not _lock.is_dead(owner)


def _is_scalar(entry: StoredField) -> bool:
    return entry.field.dims in ((), (MEMBER,))


def _along(
    db: sqlite3.Connection, fields: Mapping[str, StoredField], records: Sequence[Record]
) -> dict[str, list[Record]]:
    """``{step axis: records}``, in the order of ``records``."""
    along: dict[str, list[Record]] = {entry.axis: [] for entry in fields.values()}
    text_of = dict(db.execute("SELECT id, axes FROM records"))
    # Few schedules make few different texts for many records.
    axes = {text: json.loads(text) for text in set(text_of.values())}
    for record in records:
        for axis in axes[text_of[record.id]]:
            if axis in along:
                along[axis].append(record)
    return along


def _values(db: sqlite3.Connection, record: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    wanted = ", ".join("?" * len(names))
    rows = db.execute(
        "SELECT name, dtype, shape, data FROM arrays "
        f"WHERE record = ? AND name IN ({wanted}) AND part = 0",
        (record, *names),
    )
    found = {name: decode(dtype, shape, [data]) for name, dtype, shape, data in rows}
    return {name: found[name] for name in names if name in found}
