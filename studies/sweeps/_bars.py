"""A sweep on a terminal, drawn by rich: a bar for all tasks, and one for each that runs."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from studies._progress import duration
from studies.sweeps._board import View


class BarScreen:
    """Bars that follow a board."""

    def __init__(self, stream: TextIO) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, console=Console(file=stream, highlight=False))
        self._all = self._bars.add_task("all tasks", total=None, note="")
        self._each: dict[str, TaskID] = {}
        self._bars.start()

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._bars.console.print(text, markup=False, soft_wrap=True)

    def show(self, view: View) -> None:
        """Move the bars."""
        note = f"{view.failed} failed" if view.failed else ""
        if view.left is not None:
            note += f"{', ' * bool(note)}about {duration(view.left)} left"
        self._bars.update(self._all, completed=view.done + view.failed, total=view.total, note=note)
        labels = {sign.label: sign for sign in view.running}
        for label in [label for label in self._each if label not in labels]:
            self._bars.remove_task(self._each.pop(label))
        for label, sign in labels.items():
            if label not in self._each:
                self._each[label] = self._bars.add_task(f"  {label}", total=None, note="")
            self._bars.update(self._each[label], completed=sign.done, total=sign.total or None)

    def close(self) -> None:
        """Stop drawing; what runs no more is taken away."""
        for bar in self._each.values():
            self._bars.remove_task(bar)
        self._bars.stop()
