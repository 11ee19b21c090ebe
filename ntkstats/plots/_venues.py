"""Text widths and type sizes of the places where figures go."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ntkstats.errors import PlotError

GOLDEN = (5**0.5 - 1) / 2


class Venue(NamedTuple):
    """What a template says about figures.

    Attributes
    ----------
    column
        Width of one column, in inches.
    text
        Width of the whole text block, in inches; equal to `column` in one-column layouts.
    font_size
        Size of axis labels, in points: that of the captions.
    family
        ``"serif"`` or ``"sans-serif"``.
    """

    column: float
    text: float
    font_size: float
    family: str


# Widths are those of the LaTeX classes (72.27 pt an inch) or of the author guides (25.4 mm).
VENUES: Mapping[str, Venue] = MappingProxyType(
    {
        "neurips": Venue(5.5, 5.5, 9.0, "serif"),
        "iclr": Venue(5.5, 5.5, 9.0, "serif"),
        "icml": Venue(3.25, 6.75, 8.0, "serif"),
        "aistats": Venue(3.25, 6.75, 8.0, "serif"),
        "jmlr": Venue(6.0, 6.0, 9.0, "serif"),
        "tmlr": Venue(6.5, 6.5, 9.0, "serif"),
        "aps": Venue(246 / 72.27, 510 / 72.27, 8.0, "serif"),
        "nature": Venue(89 / 25.4, 183 / 25.4, 7.0, "sans-serif"),
        "beamer": Venue(398.3386 / 72.27, 398.3386 / 72.27, 9.0, "sans-serif"),
    }
)


def venue_named(name: str) -> Venue:
    """Look up a venue; an unknown name is answered with the known ones."""
    if name in VENUES:
        return VENUES[name]
    close = difflib.get_close_matches(str(name).lower(), VENUES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    msg = f"Unknown venue {name!r}; expected one of {', '.join(VENUES)}.{hint}"
    raise PlotError(msg)


def figure_size(
    venue: str = "neurips",
    *,
    columns: int = 1,
    fraction: float = 1.0,
    aspect: float = GOLDEN,
) -> tuple[float, float]:
    """Width and height of a figure that fits a venue's text, in inches.

    Parameters
    ----------
    venue
        ``"neurips"``, ``"iclr"``, ``"icml"``, ``"aistats"``, ``"jmlr"``, ``"tmlr"``, ``"aps"``,
        ``"nature"`` or ``"beamer"``.
    columns
        1 for the width of one column, 2 for the whole text block of a two-column layout.
    fraction
        Share of that width, in (0, 1].
    aspect
        Height divided by width.

    Returns
    -------
    tuple of float
        ``(width, height)``; include the figure in LaTeX without scaling it.

    Raises
    ------
    PlotError
        Unknown venue, two columns where there is one, or a share or aspect out of range.

    Examples
    --------
    >>> from ntkstats.plots import figure_size
    >>> figure_size("icml", columns=2, aspect=0.4)
    (6.75, 2.7)
    """
    template = venue_named(venue)
    if columns not in (1, 2):
        msg = f"columns={columns!r}; expected 1 (one column) or 2 (the whole text width)."
        raise PlotError(msg)
    if columns == 2 and template.text == template.column:
        msg = f"{venue} has one column of {template.column:g} in; pass columns=1."
        raise PlotError(msg)
    if not 0 < fraction <= 1:
        msg = f"fraction={fraction!r}; expected a share of the text width in (0, 1]."
        raise PlotError(msg)
    if not aspect > 0:
        msg = f"aspect={aspect!r}; expected height / width, a positive number."
        raise PlotError(msg)
    width = fraction * (template.text if columns == 2 else template.column)
    return round(width, 4), round(width * aspect, 4)
