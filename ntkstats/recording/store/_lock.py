"""One writer a run: an advisory lock row that survives SIGKILL of its owner."""

from __future__ import annotations

import os
import socket
import sqlite3
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ntkstats.errors import StoreError


class Owner(NamedTuple):
    """Who writes a run."""

    token: str
    host: str
    pid: int
    mark: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"


def this_process() -> Owner:
    """A new owner: this process, under a token of its own."""
    pid = os.getpid()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Owner(uuid.uuid4().hex, socket.gethostname(), pid, _mark(pid), now)


def owner_of(connection: sqlite3.Connection) -> Owner | None:
    """Who holds the lock, or None."""
    row = connection.execute("SELECT token, host, pid, mark, since FROM lock").fetchone()
    return None if row is None else Owner(*row)


def take(connection: sqlite3.Connection, me: Owner, path: Path, *, force: bool = False) -> None:
    """Write ``me`` into the lock row; the caller holds a write transaction.

    A dead owner on this machine is replaced. A live one never is; an owner on another machine
    cannot be asked, and is replaced with ``force`` only. Whoever was replaced while alive finds
    out at its next write, which is refused.
    """
    owner = owner_of(connection)
    if owner is not None and not force and not is_dead(owner):
        if (owner.host, owner.pid) == (me.host, me.pid):
            remedy = "close() the other recorder first, or choose another path"
        else:
            remedy = (
                "wait until it ends, choose another path, or pass resume='takeover' if you know "
                "that it no longer runs"
            )
        msg = f"{path} is being written by {owner}; {remedy}"
        raise StoreError(msg)
    connection.execute("INSERT OR REPLACE INTO lock VALUES (1, ?, ?, ?, ?, ?)", me)


def check(connection: sqlite3.Connection, me: Owner, path: Path) -> None:
    """Refuse to write for somebody who was replaced; the caller holds a transaction."""
    owner = owner_of(connection)
    if owner is None or owner.token != me.token:
        now = "nobody" if owner is None else str(owner)
        msg = f"{path} was taken over and now belongs to {now}; this recorder may no longer write"
        raise StoreError(msg)


def release(connection: sqlite3.Connection, me: Owner) -> None:
    """Give the lock back if it is still ours; the caller holds a transaction."""
    connection.execute("DELETE FROM lock WHERE token = ?", (me.token,))


def is_dead(owner: Owner) -> bool:
    """Whether ``owner`` certainly no longer runs; False if that cannot be told."""
    if owner.host != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # Process numbers are used again, in containers at once: then the start time differs.
    mark = _mark(owner.pid)
    return bool(owner.mark and mark and owner.mark != mark)


def _mark(pid: int) -> str:
    """When a process started (boot and clock ticks since), "" where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The command name in parentheses may hold spaces; field 22 counts from after it.
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot}:{ticks}"
