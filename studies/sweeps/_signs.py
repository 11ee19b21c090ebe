"""Signs of life: what a worker writes while it is at a task, and how others read them.

A worker counts its beats in a small file. Whoever wants to know whether it lives looks twice,
some beats apart, by its own clock: times of two machines are never compared, so clocks may differ
by hours. On one machine the kernel knows at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from studies._progress import Update

LIVE = "live"
BEAT = 1.0
"""Seconds between two beats."""
PATIENCE = 15.0
"""Beats without which a worker is thought dead."""


class Sign(NamedTuple):
    """What a worker last said.

    Attributes
    ----------
    beat
        A number that grows while it lives.
    label
        Of the task, or of what it does in it.
    done, total
        Updates; 0 of 0 until training starts.
    kernel, process
        Which kernel can tell whether it lives (empty if unknown), and its number there.
    """

    beat: int
    label: str
    done: int
    total: int
    kernel: str = ""
    process: int = 0


class Signs:
    """The `Progress` of a worker: kept in a file that is rewritten every beat."""

    def __init__(self, file: Path, label: str) -> None:
        self._file = file
        self._sign = Sign(0, label, 0, 0, _kernel(), os.getpid())
        self._stop = threading.Event()

    def say(self, text: str) -> None:
        """Nobody listens to the words of a worker; the sweep has its own."""

    @contextmanager
    def bar(self, label: str) -> Iterator[Update]:
        """Open a bar; its state goes out with the next beat."""

        def update(done: int, total: int, left: float | None = None) -> None:  # noqa: ARG001
            self._sign = self._sign._replace(label=label, done=int(done), total=int(total))

        yield update

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life until the block ends, then remove them."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            self._sign = self._sign._replace(beat=self._sign.beat + 1)
            # a full disk must not end a training that may yet find room
            with contextlib.suppress(OSError):
                self._write()

    def _write(self) -> None:
        # in place: network file systems show a file that was replaced only after a while
        self._file.write_text(json.dumps(self._sign), encoding="utf-8")


def sign_file(folder: Path, task: str, attempt: str) -> Path:
    """Where an attempt at a task gives its signs."""
    return folder / LIVE / f"{task}.{attempt}.json"


def read_sign(file: Path) -> Sign | None:
    """The last sign; None if there is none or it is just being written."""
    try:
        return Sign(*json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def wait_for_others(folder: Path, task: str, attempt: str, done: Any) -> None:
    """Wait while another attempt at the task lives and ``done()`` is false; remove dead signs."""
    for file in (folder / LIVE).glob(f"{task}.*.json"):
        if file == sign_file(folder, task, attempt):
            continue
        while not done() and _lives(file):
            pass
        file.unlink(missing_ok=True)


def _lives(file: Path) -> bool:
    """Look until a beat is seen (True) or patience ends or the file is gone (False)."""
    first = read_sign(file)
    if first is not None and _is_dead_here(first):
        return False
    end = time.monotonic() + PATIENCE * BEAT
    while time.monotonic() < end:
        time.sleep(BEAT / 4)
        if not file.exists():
            return False
        now = read_sign(file)
        if now is not None and first is not None and now.beat != first.beat:
            return True
        first = first or now
    return False


def _kernel() -> str:
    """The boot of the machine, and the space of process numbers; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_dead_here(sign: Sign) -> bool:
    if not sign.kernel or sign.kernel != _kernel():
        return False
    try:
        stat = Path(f"/proc/{sign.process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    # the name, which may hold anything, ends with the last bracket; a zombie is dead too
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
