"""Mirrors of the scalars of each record: a log, a CSV file, or whatever the user brings.

The mirrors that need other packages have modules of their own.
"""

from __future__ import annotations

import csv
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Sink(Protocol):
    """Anything that takes scalars while a run goes on, such as TensorBoard.

    The run store stays the record; a sink that raises is warned about once and called again at
    the next record. Calls come in order and one at a time, from the thread that writes the run.
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the scalars of one record."""

    def flush(self) -> None:
        """Pass on what is buffered."""

    def close(self) -> None:
        """Flush and let go of files and connections."""


class LogSink:
    """Writes each record as one line to a logger of the standard library.

    Parameters
    ----------
    logger
        Defaults to the logger ``"ntkstats"``.
    level
        Level of the lines.
    digits
        Significant digits of the numbers.
    """

    def __init__(
        self, logger: logging.Logger | None = None, *, level: int = logging.INFO, digits: int = 5
    ) -> None:
        self._logger = logging.getLogger("ntkstats") if logger is None else logger
        self._level = level
        self._digits = digits

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log ``step`` and the values."""
        text = "  ".join(f"{name} {value:.{self._digits}g}" for name, value in values.items())
        self._logger.log(self._level, "step %d  %s", step, text)

    def flush(self) -> None:
        """Nothing is buffered here; handlers flush themselves."""

    def close(self) -> None:
        """Nothing to let go of; the logger belongs to the user."""


class CSVSink:
    """Appends ``step,name,value`` lines to a file, one for each scalar.

    The long form stays valid when records of different schedules hold different names.

    Parameters
    ----------
    path
        Created with its folders if missing, otherwise continued.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if self._file.tell() == 0:
            self._writer.writerow(("step", "name", "value"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values and flush, so that the file is current while the run goes on."""
        self._writer.writerows((step, name, repr(value)) for name, value in values.items())
        self.flush()

    def flush(self) -> None:
        """Hand the lines to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Mirrors:
    """All sinks of a recorder; each one that fails is warned about once."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._failed: set[int] = set()
        self.notices: deque[str] = deque()
        """What to warn about, where the training loop comes by."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Give every sink the scalars of one record."""
        self._each("write", step, dict(values))

    def close(self) -> None:
        """Flush and close every sink."""
        self._each("flush")
        self._each("close")

    def _each(self, method: str, *arguments: object) -> None:
        for i, sink in enumerate(self._sinks):
            try:
                getattr(sink, method)(*arguments)
            except Exception as error:  # a mirror must never stop the training
                if i not in self._failed:
                    self._failed.add(i)
                    self.notices.append(
                        f"{type(sink).__name__}.{method} failed with {type(error).__name__}: "
                        f"{error}; the run store is not affected and training goes on"
                    )
