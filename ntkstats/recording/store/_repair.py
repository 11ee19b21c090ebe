"""Runs whose process was killed, and files that were damaged, brought back into order."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from ntkstats.errors import RunNotFoundError, StoreError
from ntkstats.recording.store import _lock, _schema
from ntkstats.recording.store._salvage import page_counts, salvage
from ntkstats.recording.store._store import connect, explain, store_path

JOURNAL = "-journal"
"""SQLite's suffix of the file that undoes an unfinished transaction."""


class Repair(NamedTuple):
    """What `repair` found and did.

    Attributes
    ----------
    path
        File of the run.
    found, done
        One phrase for each thing that was wrong, and for each thing done about it.
    lost
        What could not be brought back; empty when everything is as it should be.
    records
        How many records the run holds now.
    """

    path: Path
    found: tuple[str, ...]
    done: tuple[str, ...]
    lost: tuple[str, ...]
    records: int


def repair(
    path: str | os.PathLike[str], *, dry_run: bool = False, takeover: bool = False
) -> Repair:
    """Bring a run into order that its process left behind, or whose file was damaged.

    A half-written record is undone, the lock of a dead process is removed and its attempt is
    marked killed: what a reader or a resumed run does as well. From a damaged file, everything
    readable is copied to a new one; the damaged file is kept beside it as ``NAME.sqlite.damaged``.
    No record is ever removed.

    Parameters
    ----------
    path
        As for `open_run`.
    dry_run
        Only say what would be done. A temporary copy is worked on; nothing beside the run changes.
    takeover
        Also remove the lock of a process on another machine, which cannot be asked whether it
        still runs; give it only if you know that it does not.

    Raises
    ------
    RunNotFoundError
        There is no run at that path, or it holds nothing yet.
    StoreError
        A living process writes the run, the file is no run, or nothing in it is readable.
    SchemaVersionError
        It was written by a newer version.
    """
    file = store_path(path)
    if not file.is_file():
        msg = f"there is no run at {file}; give the path of a run"
        raise RunNotFoundError(msg)
    if not file.stat().st_size:
        msg = f"{file} is empty, so there is nothing to repair; delete it or record into it"
        raise RunNotFoundError(msg)
    with explain(file, "repair"):
        _refuse_if_live(file, takeover)
        if not dry_run:
            return _repair(file, file, takeover)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / file.name
            for suffix in ("", JOURNAL):
                if (source := Path(f"{file}{suffix}")).exists():
                    shutil.copyfile(source, f"{copy}{suffix}")
            return _repair(copy, file, takeover)


def _refuse_if_live(file: Path, takeover: bool) -> None:
    """Look before anything is touched; a file that cannot be read like this has no live writer."""
    with suppress_damage(), closing(connect(file, "ro")) as db:
        if not _schema.is_blank(db):
            _schema.version_of(db, file)
            _check_owner(_lock.owner_of(db), file, takeover)


@contextmanager
def suppress_damage() -> Iterator[None]:
    """Pass over an unfinished transaction and damage; other errors are raised."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        primary = getattr(error, "sqlite_errorcode", -1) & 0xFF
        # Undoing a transaction is a write, which SQLite refuses to a reader.
        passed = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN)
        if primary not in passed:
            raise


def _check_owner(owner: _lock.Owner | None, file: Path, takeover: bool) -> None:
    if owner is None or _lock.is_dead(owner):
        return
    elsewhere = owner.host != socket.gethostname()
    if elsewhere and takeover:
        return
    remedy = (
        "wait until it ends, or take it over if you know that it no longer runs"
        if elsewhere
        else "wait until it ends, or end it first"
    )
    msg = f"{file} is being written by {owner}, and a live run needs no repair; {remedy}"
    raise StoreError(msg)


def _repair(file: Path, shown: Path, takeover: bool) -> Repair:
    """Repair ``file``, which is called ``shown`` in messages."""
    found, done = [], []
    journal = Path(f"{file}{JOURNAL}")
    # It goes with the commit, so one that a dead process left belongs to an unfinished record.
    had_journal = journal.exists() and journal.stat().st_size > 0
    damage, records = None, 0
    try:
        with closing(connect(file, "rw")) as db:
            db.execute("PRAGMA synchronous = EXTRA")
            _schema.is_blank(db)  # the first look undoes what a killed process left unfinished
            if had_journal:
                found.append("the process was killed in the middle of a record")
                done.append("undo the unfinished record, which was never acknowledged")
            damage = _damage(db, file)
            if damage is None:
                if _schema.is_blank(db):
                    msg = f"{shown} holds nothing yet, so there is nothing to repair"
                    raise RunNotFoundError(msg)
                _schema.version_of(db, shown)
                _tidy(db, shown, takeover, found, done)
                records = db.execute("SELECT count(*) FROM records").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", -1) & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        damage = _truncation(file) or str(error)
    if damage is None:
        return Repair(shown, tuple(found), tuple(done), (), records)
    found.append(f"the file is damaged: {damage}")
    return _rebuild(file, shown, takeover, found, done)


def _tidy(
    db: sqlite3.Connection, file: Path, takeover: bool, found: list[str], done: list[str]
) -> None:
    """Remove the lock and end the attempt of a process that is gone."""
    db.execute("BEGIN IMMEDIATE")
    owner = _lock.owner_of(db)
    _check_owner(owner, file, takeover)  # again, now that nobody can take it
    if owner is not None:
        found.append(f"the lock is held by {owner}, which no longer runs")
        _lock.release(db, owner)
        done.append("remove the lock")
    open_ended = db.execute("SELECT id FROM attempts WHERE status = 'running'").fetchall()
    for (attempt,) in open_ended:
        found.append(f"attempt {attempt} has no end")
        db.execute("UPDATE attempts SET status = 'killed' WHERE id = ?", (attempt,))
        done.append(f"mark attempt {attempt} as killed")
    db.execute("COMMIT")


def _damage(db: sqlite3.Connection, file: Path) -> str | None:
    """What is wrong with the pages of the file."""
    truncated = _truncation(file)
    if truncated:
        return truncated
    lines = [text for (text,) in db.execute("PRAGMA integrity_check(100)")]
    if lines == ["ok"]:
        return None
    first = " ".join(lines[0].replace("*** in database main ***", "").split())
    return first + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def _truncation(file: Path) -> str | None:
    expected, there, size = page_counts(file)
    if there >= expected:
        return None
    return f"{expected} pages of {size} bytes were written, {max(0, int(there))} are there"


def _rebuild(file: Path, shown: Path, takeover: bool, found: list[str], done: list[str]) -> Repair:
    """Copy what is readable to a new file and put it in place; the damaged one is kept."""
    new = file.with_name(f"{file.name}.salvaged")
    try:
        new.unlink(missing_ok=True)  # of a repair that was interrupted
        saved = salvage(file, new)
        _check_owner(saved.owner, shown, takeover)
        kept = _free_name(file)
        _keep(file, kept)
        os.replace(new, file)
    finally:
        new.unlink(missing_ok=True)
    done.append(f"copy {saved.records} readable records to a new file")
    done.append(f"keep the damaged file as {kept.name}")
    return Repair(shown, tuple(found), tuple(done), saved.lost, saved.records)


def _free_name(file: Path) -> Path:
    kept, i = file.with_name(f"{file.name}.damaged"), 1
    while kept.exists():
        i += 1
        kept = file.with_name(f"{file.name}.damaged{i}")
    return kept


def _keep(file: Path, kept: Path) -> None:
    """Give the damaged file another name, and its journal too: it belongs to no other file."""
    try:
        os.link(file, kept)  # so that at no moment there is no run at the path
    except OSError:
        file.rename(kept)
    journal = Path(f"{file}{JOURNAL}")
    if journal.exists():
        journal.rename(f"{kept}{JOURNAL}")
