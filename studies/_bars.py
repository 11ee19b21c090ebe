"""Bars on a terminal, drawn by rich."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from studies._progress import Update, duration


class Bars:
    """Progress bars with elapsed and remaining time."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str) -> Iterator[Update]:
        """Open a bar; it stays, complete, when it ends."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=self._console) as bars:
            job = bars.add_task(label, total=None, left="")

            def update(done: int, total: int, left: float | None = None) -> None:
                if left is None:  # rich's own guess, from the pace of the last seconds
                    left = bars.tasks[0].time_remaining
                known = left is not None and math.isfinite(left) and done < total
                rest = f"{duration(left or 0.0)} left" if known else ""
                bars.update(job, completed=done, total=total, left=rest)

            yield update
