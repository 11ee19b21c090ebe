"""The tables of a stored landscape and their version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ntkstats.errors import SchemaVersionError, StoreError

APPLICATION_ID = 0x6E746B6C
"""Marks an SQLite file as a landscape ("ntkl" in ASCII)."""

VERSION = 1
"""Version of the tables below. Raise it with every change and add a migration."""

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # Orbit sizes are text: 2^n n! leaves the range of 64 bits at 17 hidden units.
    """CREATE TABLE points (
        id INTEGER PRIMARY KEY, idx INTEGER NOT NULL, energy REAL NOT NULL, gradient REAL NOT NULL,
        n_zero INTEGER NOT NULL, orbit TEXT NOT NULL, hits INTEGER NOT NULL,
        observed TEXT NOT NULL, run INTEGER REFERENCES runs (id))""",
    # Beside the rows, so that looking through the rows does not read the coordinates.
    """CREATE TABLE coordinates (
        point INTEGER PRIMARY KEY REFERENCES points (id),
        theta BLOB NOT NULL, spectrum BLOB NOT NULL)""",
    """CREATE TABLE paths (
        saddle INTEGER NOT NULL REFERENCES points (id), side INTEGER NOT NULL,
        minimum INTEGER REFERENCES points (id), via TEXT NOT NULL, length INTEGER NOT NULL,
        arc BLOB NOT NULL, energy BLOB NOT NULL, gradient BLOB NOT NULL, lowest BLOB NOT NULL,
        theta BLOB NOT NULL, observed TEXT NOT NULL, PRIMARY KEY (saddle, side))""",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY, spec TEXT NOT NULL UNIQUE, done INTEGER NOT NULL,
        report TEXT NOT NULL, facts TEXT NOT NULL)""",
)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables; the caller holds a transaction."""
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def check(connection: sqlite3.Connection, path: str | Path) -> None:
    """Refuse a file that is no landscape, or of a newer version."""
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if mark != APPLICATION_ID:
        msg = (
            f"{path} is an SQLite database, but not a landscape; give the path of a landscape or "
            "choose another file name"
        )
        raise StoreError(msg)
    if version > VERSION:
        msg = (
            f"{path} has schema version {version}, this ntkstats reads versions up to {VERSION}; "
            "upgrade ntkstats to read it"
        )
        raise SchemaVersionError(msg)
