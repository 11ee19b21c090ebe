"""How far a sweep is, over all its tasks, while they run anywhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TextIO

from studies._progress import duration
from studies.sweeps._signs import LIVE, Sign, read_sign
from studies.sweeps._work import Outcome

_SHOWN = 4  # running tasks that are named in a line


class View(NamedTuple):
    """What is shown.

    Attributes
    ----------
    total, done, failed
        Tasks; the failed ones are not among the done.
    running
        Last signs of the tasks under way.
    left
        Seconds, or None if nobody can know yet.
    """

    total: int
    done: int
    failed: int
    running: tuple[Sign, ...]
    left: float | None


class Screen(Protocol):
    """Where a board is drawn."""

    def say(self, text: str) -> None:
        """Write a line that stays."""

    def show(self, view: View) -> None:
        """Draw the present state."""

    def close(self) -> None:
        """Leave the last state where it is."""


class LineScreen:
    """Lines for log files: one every few seconds, if something changed."""

    def __init__(
        self,
        stream: TextIO,
        *,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._last = clock()
        self._before = ""

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    def show(self, view: View) -> None:
        """Write a line if it is time."""
        now, line = self._clock(), sentence(view)
        if now - self._last < self._interval or line == self._before:
            return
        self._last, self._before = now, line
        self.say(line)

    def close(self) -> None:
        """Nothing to do."""


def sentence(view: View) -> str:
    """Say it in a line: ``3 of 12 tasks done, 1 failed; wide 30/100; about 4 min 00 s left``."""
    parts = [f"{view.done} of {view.total} tasks done"]
    parts[0] += f", {view.failed} failed" if view.failed else ""
    named = [
        f"{sign.label} {sign.done}/{sign.total}" if sign.total else f"{sign.label} starting"
        for sign in view.running[:_SHOWN]
    ]
    if len(view.running) > _SHOWN:
        named.append(f"{len(view.running) - _SHOWN} more")
    parts += [", ".join(named)] if named else []
    parts += [f"about {duration(view.left)} left"] if view.left is not None else []
    return "; ".join(parts)


class Board:
    """Looks at the signs of life in a folder and draws them, in a thread, until it is left.

    Parameters
    ----------
    screen
        Where to draw.
    folder
        Of the sweep.
    total, done
        Tasks in all, and those finished before.
    """

    def __init__(
        self,
        screen: Screen,
        folder: Path,
        total: int,
        done: int,
        *,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = screen
        self._folder = folder
        self._total, self._before = total, done
        self._done = self._failed = 0
        self._interval = interval
        self._clock = clock
        self._start = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Board:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._screen.show(self.view())
        self._screen.close()

    def count(self, outcome: Outcome) -> None:
        """Take note of an outcome; failures are said at once."""
        if outcome.state in ("finished", "kept"):
            self._done += 1
        else:
            self._failed += 1
            self._screen.say(f"{outcome.label}: {outcome.state}, {outcome.why}")

    def view(self) -> View:
        """What is to be shown now."""
        found = (read_sign(file) for file in sorted((self._folder / LIVE).glob("*.json")))
        running = tuple(sign for sign in found if sign is not None)
        ran = self._done + self._failed
        under_way = sum(sign.done / sign.total for sign in running if sign.total)
        rest = self._total - self._before - ran - under_way
        left = None
        if ran and rest > 0:  # of tasks alone: the first one compiles, and tasks differ in size
            left = (self._clock() - self._start) * rest / (ran + under_way)
        return View(self._total, self._before + self._done, self._failed, running, left)

    def _look(self) -> None:
        while not self._stop.wait(self._interval):
            self._screen.show(self.view())


def screen_to(stream: TextIO) -> Screen:
    """Bars on a terminal (if rich is installed), lines elsewhere."""
    if stream.isatty():
        try:
            return _bars(stream)
        except ModuleNotFoundError:
            pass
    return LineScreen(stream)


def _bars(stream: TextIO) -> Screen:
    from studies.sweeps._bars import BarScreen

    screen: Any = BarScreen(stream)
    return screen
