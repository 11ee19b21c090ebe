"""One look for all figures, entered and left; nothing global changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.colors import Colormap, ListedColormap

from ._venues import GOLDEN, figure_size, venue_named

# Okabe and Ito (2008) without black and yellow, reordered so that neighbours differ in lightness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B6B6B")

# STIX ships with matplotlib and matches Times, so figures look the same on every machine.
_FONTS = {
    "serif": {"font.serif": ["STIXGeneral"], "mathtext.fontset": "stix"},
    "sans-serif": {
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "mathtext.fontset": "dejavusans",
    },
}


@contextmanager
def style(
    venue: str = "neurips",
    fraction: float = 1.0,
    *,
    columns: int = 1,
    aspect: float = GOLDEN,
) -> Iterator[None]:
    """Draw and save figures at a venue's width, type size and typeface.

    A context manager around matplotlib's own settings: they are as before when it ends. Create
    **and save** the figure inside, since fonts are resolved when it is drawn.

    Parameters
    ----------
    venue, fraction, columns, aspect
        As in `figure_size`, which sets the default size of figures inside.

    Raises
    ------
    PlotError
        The venue or the sizes are not usable; see `figure_size`.

    Examples
    --------
    >>> import matplotlib as mpl
    >>> from ntkstats import plots
    >>> with plots.style("aps"):
    ...     float(mpl.rcParams["font.size"])
    8.0
    """
    with mpl.rc_context(_settings(venue, fraction, columns, aspect)):
        yield


def _settings(venue: str, fraction: float, columns: int, aspect: float) -> Any:
    template = venue_named(venue)
    size = template.font_size
    return {
        "figure.figsize": figure_size(venue, columns=columns, fraction=fraction, aspect=aspect),
        "figure.constrained_layout.use": True,
        "savefig.bbox": None,  # a tight box would change the width that was asked for
        "savefig.dpi": 300,
        "pdf.fonttype": 42,  # venues refuse type 3 fonts
        "ps.fonttype": 42,
        "font.family": template.family,
        **_FONTS[template.family],
        "font.size": size,
        "axes.labelsize": size,
        "axes.titlesize": size,
        "legend.fontsize": size - 1,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "axes.prop_cycle": cycler(color=list(PALETTE)),
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.formatter.use_mathtext": True,
        "axes.formatter.limits": (-3, 4),
        "lines.linewidth": 1.3,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "legend.frameon": False,
        "legend.handlelength": 1.4,
        "legend.columnspacing": 1.4,
    }


def sequential() -> Colormap:
    """Colours for an ordered quantity; viridis without the yellow that fades on white paper."""
    return ListedColormap(mpl.colormaps["viridis"](np.linspace(0.0, 0.92, 256)), name="ntkstats")


def distinct(n: int) -> list[Any]:
    """`n` colours for named things: the palette, or steps of the sequential map beyond it."""
    if n <= len(PALETTE):
        return list(PALETTE[:n])
    return [tuple(c) for c in sequential()(np.linspace(0.0, 1.0, n))]
