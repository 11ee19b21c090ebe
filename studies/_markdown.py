"""Tables and intervals for pages that are rendered from numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

NOTHING = "–"  # noqa: RUF001 - a dash for an empty cell
MINUS = "−"  # noqa: RUF001 - as wide as a plus


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def line(cells: Sequence[str]) -> str:
    """One row of it."""
    return f"| {' | '.join(cells)} |"


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals, a dash for none."""
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{value:.{digits}f}"
    # Rounded to nothing, a number has no sign.
    text = text.lstrip("-") if float(text) == 0 else text
    return text.replace("-", MINUS)


def interval(ends: Sequence[float | None], digits: int, *, mark: bool = False) -> str:
    """``value [low, high]``, in bold if it is marked and leaves out 0."""
    value, low, high = ends
    if value is None:
        return NOTHING
    if low is None or high is None:
        return number(value, digits)
    text = f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"
    return f"**{text}**" if mark and (low > 0 or high < 0) else text
