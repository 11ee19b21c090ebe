"""What a benchmark's table holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def holds(value: float | None, bar: float | None, *, at_least: bool) -> bool:
    """Whether a number keeps its bar; one that was not measured keeps none."""
    if bar is None:
        return True
    if value is None:
        return False
    return value >= bar if at_least else value <= bar


@dataclass(frozen=True)
class Cell:
    """A number beside those that every table has.

    Attributes
    ----------
    value
        The number; None when there is none.
    unit
        Its unit.
    bar
        What it may be at most, or `at_least` this; None for no bar.
    note
        What to show instead of a number that is missing.
    """

    value: float | None
    unit: str = ""
    bar: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the bar holds."""
        return holds(self.value, self.bar, at_least=self.at_least)


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table.

    Attributes
    ----------
    case
        What was run.
    ours, peer
        Medians, in `unit`; no peer if none came to an end.
    ratio
        Median of the ratios of neighbouring runs; ours / peer unless the table says otherwise.
    bar
        What the ratio may be at most, or `at_least` this; None for no bar.
    unit
        Unit of `ours` and `peer`; absolute values mean little on a shared machine.
    more
        Further columns of the table by their titles.
    """

    case: str
    ours: float
    peer: float | None
    ratio: float | None
    bar: float | None = None
    unit: str = "s"
    at_least: bool = False
    more: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every bar of the row holds."""
        kept = holds(self.ratio, self.bar, at_least=self.at_least)
        return kept and all(cell.holds for cell in self.more.values())


@dataclass(frozen=True)
class Table:
    """What a benchmark hands over to be written.

    Attributes
    ----------
    rows
        Its lines.
    columns
        Titles of the columns ``ours`` and ``peer`` and, if it is not a plain ratio, ``ratio``.
    question
        What the table answers.
    notes
        How it was measured, as far as a reader must know.
    versions
        Versions of what is not in our own environment.
    series
        Points behind the rows, for a figure.
    figure
        ``file`` beside the JSON, and ``caption``.
    options
        What must be added to the command to get this table.
    whole
        Whether rows of other cases that the file holds are dropped.
    """

    rows: list[Row]
    columns: Mapping[str, str]
    question: str
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    series: list[dict[str, Any]] = field(default_factory=list)
    figure: Mapping[str, str] = field(default_factory=dict)
    options: str = ""
    whole: bool = False
