"""The tables of a run store and their version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from ntkstats.errors import SchemaVersionError, StoreError

APPLICATION_ID = 0x6E746B73
"""Marks an SQLite file as ours ("ntks" in ASCII)."""

VERSION = 1
"""Version of the tables below. Raise it with every change and add a migration."""

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE lock (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        token TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, mark TEXT NOT NULL,
        since TEXT NOT NULL)""",
    """CREATE TABLE attempts (
        id INTEGER PRIMARY KEY,
        started TEXT NOT NULL, ended TEXT, status TEXT NOT NULL,
        from_step INTEGER, facts TEXT NOT NULL)""",
    """CREATE TABLE fields (
        position INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE, axis TEXT NOT NULL, origin TEXT NOT NULL, spec TEXT NOT NULL)""",
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        attempt INTEGER NOT NULL REFERENCES attempts (id), step INTEGER NOT NULL,
        axes TEXT NOT NULL, time REAL NOT NULL, duration REAL NOT NULL,
        finite INTEGER NOT NULL, UNIQUE (attempt, step))""",
    """CREATE TABLE arrays (
        record INTEGER NOT NULL REFERENCES records (id), name TEXT NOT NULL,
        part INTEGER NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (record, name, part))""",
    """CREATE TABLE failures (
        id INTEGER PRIMARY KEY,
        attempt INTEGER, step INTEGER, time REAL NOT NULL,
        stage TEXT NOT NULL, error TEXT NOT NULL, message TEXT NOT NULL)""",
)

NAMES = ("arrays", "records", "failures", "fields", "attempts", "lock", "meta")
"""Tables, those that refer to others first."""

Migration = Callable[[sqlite3.Connection], None]

MIGRATIONS: Mapping[int, Migration] = {}
"""``{v: change}``: ``change`` turns the tables of version v into those of version v + 1."""


def create(connection: sqlite3.Connection) -> None:
    """Create the tables; the caller holds a transaction."""
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def clear(connection: sqlite3.Connection) -> None:
    """Drop every table of a run that holds no record; the caller holds a transaction."""
    for name in NAMES:
        connection.execute(f"DROP TABLE {name}")


def is_blank(connection: sqlite3.Connection) -> bool:
    """Whether the file holds nothing yet."""
    return connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Schema version of a run store.

    Raises
    ------
    StoreError
        The file is an SQLite database, but not a run store.
    SchemaVersionError
        It was written by a newer ntkstats.
    """
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if mark != APPLICATION_ID:
        msg = (
            f"{path} is an SQLite database, but not an ntkstats run; "
            f"give the path of a run or choose another file name"
        )
        raise StoreError(msg)
    if version > VERSION:
        msg = (
            f"{path} has schema version {version}, this ntkstats reads versions up to {VERSION}; "
            f"upgrade ntkstats to read it"
        )
        raise SchemaVersionError(msg)
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables from ``version`` up to `VERSION`; the caller holds a transaction."""
    for old in range(version, VERSION):
        MIGRATIONS[old](connection)
        connection.execute(f"PRAGMA user_version = {old + 1}")
