"""Everything readable in a damaged run."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ntkstats.errors import StoreError
from ntkstats.recording.store import _lock, _schema
from ntkstats.recording.store._store import connect

_PATIENCE = 2000  # unreadable rows that are stepped over one by one
_LAST = 2**40  # no rowid is larger
_SHOWN = 10
_NEEDED = {"run_id", "created", "seed", "measurement"}

Key = tuple[int, str]
"""Record and name of an array."""


class Salvage(NamedTuple):
    """What was copied: how many records, what is lost, and who held the lock."""

    records: int
    lost: tuple[str, ...]
    owner: _lock.Owner | None


def page_counts(file: Path) -> tuple[int, float, int]:
    """Pages that an SQLite file should have, pages it has (in fractions), and bytes of a page."""
    with file.open("rb") as handle:
        header = handle.read(100)
    if len(header) < 100:
        return 1, 0.0, 4096
    (size,) = struct.unpack_from(">H", header, 16)
    size = 65536 if size == 1 else size
    (expected,) = struct.unpack_from(">I", header, 28)
    return expected, file.stat().st_size / max(size, 1), size


def salvage(file: Path, new: Path) -> Salvage:
    """Copy what can be read in ``file`` to the new run ``new``.

    Raises
    ------
    StoreError
        What the run is, or every record of it, is beyond reading.
    """
    with tempfile.TemporaryDirectory(dir=new.parent) as folder:
        copy = Path(folder) / "copy.sqlite"
        shutil.copyfile(file, copy)
        with closing(connect(new, "rwc")) as db:
            db.execute("PRAGMA synchronous = EXTRA")
            db.execute("BEGIN IMMEDIATE")
            _schema.create(db)
            _copy_trusted(copy, db)
            if not _is_described(db):
                msg = (
                    f"{file.name} is damaged beyond repair: its description cannot be read; "
                    f"restore it from a copy"
                )
                raise StoreError(msg)
            lost = _drop_incomplete(db)
            records = db.execute("SELECT count(*) FROM records").fetchone()[0]
            if not records:
                msg = f"{file.name} holds no readable record; restore it from a copy"
                raise StoreError(msg)
            owner = _lock.owner_of(db)
            db.execute("DELETE FROM lock")
            db.execute("UPDATE attempts SET status = 'killed' WHERE status = 'running'")
            db.execute("COMMIT")
    return Salvage(records, lost, owner)


def _copy_trusted(copy: Path, db: sqlite3.Connection) -> None:
    """Insert the rows that do not depend on missing bytes.

    SQLite does not notice when the last page of a long value is missing. The missing bytes are
    filled in two ways, and rows that come out differently are not trusted.
    """
    expected, there, size = page_counts(copy)
    missing = expected - int(there)
    seen: dict[str, dict[int, bytes]] | None = None
    if missing > 0:
        _fill(copy, int(there) * size, b"\x00" * size, missing)
        with closing(connect(copy, "ro")) as damaged:
            seen = {n: {id: _digest(r) for id, r in _rows(damaged, n)} for n in _schema.NAMES}
        _fill(copy, int(there) * size, b"\xff" * size, missing)
    with closing(connect(copy, "ro")) as damaged:
        for name in _schema.NAMES:
            for id, row in _rows(damaged, name):
                if seen is None or seen[name].get(id) == _digest(row):
                    values = ", ".join("?" * len(row))
                    db.execute(f"INSERT OR IGNORE INTO {name} VALUES ({values})", row)


def _fill(file: Path, start: int, page: bytes, count: int) -> None:
    with file.open("r+b") as handle:
        handle.truncate(start)
        handle.seek(start)
        for _ in range(count):
            handle.write(page)


def _digest(row: tuple[Any, ...]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for value in row:
        raw = value if isinstance(value, bytes) else repr(value).encode()
        digest.update(b"%d:" % len(raw))
        digest.update(raw)
    return digest.digest()


def _rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """All rows that can be read, by rowid; unreadable ones are stepped over."""
    at, misses = -1, 0
    while at < _LAST:
        try:
            rows = db.execute(
                f"SELECT rowid, * FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid", (at,)
            )
            for id, *row in rows:
                at, misses = id, 0
                yield id, tuple(row)
        except sqlite3.DatabaseError:
            misses += 1
            at = at + 1 if misses < _PATIENCE else _beyond(db, table, at)
        else:
            return


def _beyond(db: sqlite3.Connection, table: str, at: int) -> int:
    """The next place from which a table can be read on; `_LAST` if there is none."""

    def opens(rowid: int) -> bool:
        try:
            db.execute(
                f"SELECT rowid FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT 1",
                (rowid,),
            ).fetchone()
        except sqlite3.DatabaseError:
            return False
        return True

    step = 1
    while not opens(at + step):
        step *= 2
        if at + step > _LAST:
            return _LAST
    low, high = at + step // 2, at + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if opens(middle) else (middle, high)
    return high


def _is_described(db: sqlite3.Connection) -> bool:
    try:
        meta = {key: json.loads(text) for key, text in db.execute("SELECT * FROM meta")}
    except ValueError:
        return False
    attempts = db.execute("SELECT count(*) FROM attempts").fetchone()[0]
    return bool(attempts) and meta.keys() >= _NEEDED


def _drop_incomplete(db: sqlite3.Connection) -> tuple[str, ...]:
    """Remove arrays of which bytes are missing and records without any; say what is lost."""
    whole, broken = _arrays(db)
    db.executemany("DELETE FROM arrays WHERE record = ? AND name = ?", sorted(broken))
    records = db.execute("SELECT id, step, axes FROM records ORDER BY id").fetchall()
    kept = {record for record, _ in whole}
    db.executemany(
        "DELETE FROM records WHERE id = ?", [(r[0],) for r in records if r[0] not in kept]
    )
    there = {record[0] for record in records}
    db.executemany("DELETE FROM arrays WHERE record = ?", [(id,) for id in kept - there])
    last = max([0, *there, *kept, *(record for record, _ in broken)])
    unreadable = last - len(there)
    lines = [f"{unreadable} records"] if unreadable else []
    lines += [f"everything at step {step}" for id, step, _ in records if id not in kept]
    due: dict[str, list[str]] = {}
    for name, axis in db.execute("SELECT name, axis FROM fields WHERE origin = 'collector'"):
        due.setdefault(axis, []).append(name)
    incomplete = _incomplete([r for r in records if r[0] in kept], due, whole, broken)
    lines += [f"{', '.join(names)} at step {step}" for step, names in incomplete.items()]
    more = [f"{len(lines) - _SHOWN} more such"] if len(lines) > _SHOWN else []
    return (*lines[:_SHOWN], *more)


def _arrays(db: sqlite3.Connection) -> tuple[set[Key], set[Key]]:
    """Arrays of which every byte is there, and the others."""
    parts: dict[Key, list[tuple[int, int, str, str]]] = {}
    rows = db.execute(
        "SELECT record, name, part, length(data), dtype, shape FROM arrays "
        "ORDER BY record, name, part"
    )
    for record, name, *part in rows:
        parts.setdefault((record, name), []).append(tuple(part))
    whole = {key for key, group in parts.items() if _is_whole(group)}
    return whole, parts.keys() - whole


def _is_whole(parts: Sequence[tuple[int, int, str, str]]) -> bool:
    _, _, dtype, shape = parts[0]
    try:
        expected = math.prod(json.loads(shape)) * np.dtype(dtype).itemsize
    except (TypeError, ValueError):
        return False
    in_order = [part for part, *_ in parts] == list(range(len(parts)))
    return in_order and sum(length for _, length, *_ in parts) == expected


def _incomplete(
    records: Sequence[tuple[int, int, str]],
    due: Mapping[str, Sequence[str]],
    whole: set[Key],
    broken: set[Key],
) -> dict[int, list[str]]:
    """``{step: names}`` of arrays that a record should have."""
    found = {}
    cut: dict[int, set[str]] = {}
    for record, name in broken:
        cut.setdefault(record, set()).add(name)
    for id, step, axes in records:
        wanted = {name for axis in json.loads(axes) for name in due.get(axis, ())}
        absent = [n for n in sorted(wanted | cut.get(id, set())) if (id, n) not in whole]
        if absent:
            found[step] = absent
    return found
