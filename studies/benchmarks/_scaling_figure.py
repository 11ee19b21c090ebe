"""The figure of the scaling benchmark, from the points in its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from ntkstats import plots

PANELS = {"N": "samples N", "C": "outputs C", "P": "parameters P", "T": "positions T"}
COLOURS = {"MLP": plots.PALETTE[0], "transformer": plots.PALETTE[1]}
MARKERS = {"MLP": "o", "transformer": "s"}
QUANTITIES = (("seconds", "time (s)", 1.0), ("bytes", "memory (MiB)", 2.0**-20))


def draw(series: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory over each size, with fitted power laws, and save.

    Parameters
    ----------
    series
        Each with ``axis``, ``network``, ``size``, ``seconds`` and ``bytes``.
    path
        Where to; the suffix decides the format.
    """
    # The same points give the same file.
    with plots.style("tmlr", aspect=0.58), mpl.rc_context({"svg.hashsalt": "ntkstats"}):
        figure, axes = plt.subplots(2, len(PANELS), sharex="col", sharey="row")
        for column, name in enumerate(PANELS):
            for row, (quantity, label, scale) in enumerate(QUANTITIES):
                ax = axes[row, column]
                for one in series:
                    if one["axis"] == name:
                        _curve(ax, one, quantity, scale)
                _finish(ax, [s for s in series if s["axis"] == name])
                if column == 0:
                    ax.set_ylabel(label)
                    ax.yaxis.set_major_locator(LogLocator(numticks=6))
            axes[-1, column].set_xlabel(PANELS[name])
        figure.align_xlabels()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _curve(ax: Axes, one: dict[str, Any], quantity: str, scale: float) -> None:
    size, value = np.asarray(one["size"]), scale * np.asarray(one[quantity])
    exponent, level = np.polyfit(np.log(size), np.log(value), 1)
    network = one["network"]
    ax.loglog(size, np.exp(level) * size**exponent, color=COLOURS[network], linewidth=0.8)
    ax.loglog(
        size,
        value,
        MARKERS[network],
        color=COLOURS[network],
        markersize=3.5,
        label=f"{network} {exponent:.2f}",
    )


def _finish(ax: Axes, series: list[dict[str, Any]]) -> None:
    """Ticks at sizes that were run; no minor labels."""
    sizes = sorted({size for one in series for size in one["size"]})
    if sizes and sizes[-1] < 2000:
        ax.xaxis.set_major_locator(FixedLocator(sizes[:: 1 if len(sizes) < 6 else 2]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    # Above the panel: lines rise through every corner of it.
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(-0.05, 0.98),
        handletextpad=0.2,
        borderpad=0.1,
        labelspacing=0.2,
    )
