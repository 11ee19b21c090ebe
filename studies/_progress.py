"""How a study says how far it is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO


class Update(Protocol):
    """Called by whoever works: ``update(done, total)``, with the seconds left if it knows.

    NaN says that nobody can know yet; None leaves it to the pace of the steps.
    """

    def __call__(self, done: int, total: int, left: float | None = None) -> None:
        """Show it."""
        ...


class Progress(Protocol):
    """Where studies report to."""

    def say(self, text: str) -> None:
        """Write a line that stays."""
        ...

    def bar(self, label: str) -> AbstractContextManager[Update]:
        """Open a bar; what is entered is called with steps done and in total."""
        ...


def progress_to(stream: TextIO) -> Progress:
    """Bars with remaining time if `stream` is a terminal (and rich is installed), else lines."""
    if stream.isatty():
        try:
            from studies._bars import Bars
        except ModuleNotFoundError:
            return Lines(stream)
        return Bars(stream)
    return Lines(stream)


class Lines:
    """Plain lines for log files: at most one every few seconds, with the time that remains.

    Parameters
    ----------
    stream
        Where to write.
    interval
        Seconds between lines about the same bar.
    clock
        Returns seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    @contextmanager
    def bar(self, label: str) -> Iterator[Update]:
        """Open a bar of lines; the last line says how long everything took."""
        start = self._clock()
        last_line = start
        before: tuple[float, int] | None = None
        reached = 0

        def update(done: int, total: int, left: float | None = None) -> None:
            nonlocal last_line, before, reached
            now = self._clock()
            reached = done
            if now - last_line < self._interval or done >= total:
                return
            last_line = now
            if left is None and before is not None and done > before[1]:
                # the pace since the last line: what came before was compilation
                left = (total - done) * (now - before[0]) / (done - before[1])
            before = (now, done)
            rest = "" if left is None or math.isnan(left) else f", {duration(left)} left"
            self.say(f"{label}: step {done} of {total}{rest}")

        yield update
        self.say(f"{label}: {reached} steps in {duration(self._clock() - start)}")


def duration(seconds: float) -> str:
    """Seconds in words for people: ``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
