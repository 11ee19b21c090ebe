"""Scales, ticks and labels of one panel."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, SymLogNorm
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from ntkstats.errors import PlotError

Switch = bool | Literal["auto"]

_DECADES = 1.5
_BOUNDED = ("accuracy",)  # read on a linear scale however small


def check_switch(name: str, value: object) -> None:
    """Refuse anything but True, False and ``"auto"``."""
    if value is not True and value is not False and value != "auto":
        msg = f"{name}={value!r}; expected True, False or 'auto'."
        raise PlotError(msg)


def scale_steps(ax: Axes, x: np.ndarray, how: Switch) -> None:
    """Choose the scale of the abscissa from the points drawn on it.

    Steps spaced unevenly over more than 1.5 decades get a logarithmic axis. Step 0 then has its
    own place: the axis is linear from 0 to the first step after it. A scale that is already
    there stays.
    """
    positive = x[x > 0]
    log = how if how != "auto" else _uneven(x)
    if log and positive.size and ax.get_xscale() == "linear":
        ax.margins(x=0.02)
        if (x <= 0).any():
            ax.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.4)
        else:
            ax.set_xscale("log")
    if ax.get_xscale() == "symlog":
        _symlog_ticks(ax, float(np.max(x, initial=ax.dataLim.x1)))
    elif ax.get_xscale() == "log":
        ax.xaxis.set_major_formatter(count_formatter())


def _uneven(x: np.ndarray) -> bool:
    steps = np.unique(x[np.isfinite(x)])
    positive = steps[steps > 0]
    if positive.size < 3 or (steps < 0).any():
        return False
    gaps = np.diff(steps)
    spread = positive[-1] / positive[0] > 10**_DECADES
    # the final state is recorded out of turn, so the last gap says nothing
    return bool(spread and gaps[:-1].max() > 3 * gaps[:-1].min())


def _symlog_ticks(ax: Axes, top: float) -> None:
    transform: Any = ax.xaxis.get_transform()
    decades = _decades(transform.linthresh, top)
    between = (decades[:, None] * np.arange(2, 10)).ravel()
    ax.xaxis.set_major_locator(FixedLocator([0.0, *decades]))
    ax.xaxis.set_major_formatter(count_formatter())
    ax.xaxis.set_minor_locator(FixedLocator(between[between < top].tolist()))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _decades(low: float, high: float) -> np.ndarray:
    return 10.0 ** np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)


def count_formatter() -> FuncFormatter:
    """Write whole numbers in full up to 1000, then as powers of ten."""
    power = LogFormatterSciNotation()

    def text(value: float, _: int | None = None) -> str:
        return f"{value:g}" if abs(value) < 5e3 else str(power(value))

    return FuncFormatter(text)


def scale_values(ax: Axes, values: Iterable[np.ndarray], how: Switch, name: str) -> None:
    """Choose the scale of the ordinate: logarithmic for positive values over 1.5 decades."""
    before = [np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()]
    drawn = np.concatenate([np.ravel(v) for v in (*values, *before)] or [np.empty(0)])
    drawn = drawn[np.isfinite(drawn)]
    if how == "auto":
        bounded = name.split("_")[0] in _BOUNDED
        how = bool(
            not bounded
            and drawn.size
            and drawn.min() > 0
            and drawn.max() > 10**_DECADES * drawn.min()
        )
    if how and (drawn > 0).any():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(numticks=6))
    elif ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))


def label_once(ax: Axes, x: str | None, y: str | None) -> None:
    """Label axes that have no label yet, in lines short enough for a small panel."""
    if x is not None and not ax.get_xlabel():
        ax.set_xlabel(x)
    if y is not None and not ax.get_ylabel():
        figure = ax.get_figure(root=True)
        inches = ax.get_position().height * (figure.get_figheight() if figure else 3.0)
        # a letter is a little less than half as wide as its size
        fitting = int(inches * 72 / (0.45 * float(ax.yaxis.label.get_fontsize())))
        ax.set_ylabel("\n".join(textwrap.wrap(y, max(fitting, 12))))


def step_norm(steps: np.ndarray) -> Normalize:
    """Map steps to colours as `scale_steps` maps them to places."""
    low, high = float(steps.min()), float(steps.max())
    if low == high:
        return Normalize(low - 0.5, high + 0.5)
    positive = steps[steps > 0]
    if positive.size > 1 and positive.max() / positive.min() > 10**_DECADES:
        return SymLogNorm(float(positive.min()), linscale=0.4, vmin=low, vmax=high)
    return Normalize(low, high)


def step_colorbar(ax: Axes, cmap: Colormap, norm: Normalize, label: str) -> None:
    """Put a slim colourbar for steps beside the panel."""
    figure = ax.get_figure(root=True)
    if figure is None:  # the axes were taken out of their figure
        return
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=ax, label=label, aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    if isinstance(norm, SymLogNorm):
        steps = _decades(norm.linthresh, norm.vmax or 1.0)
        bar.set_ticks([0.0, *steps] if norm.vmin == 0 else list(steps))
        bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(count_formatter())
