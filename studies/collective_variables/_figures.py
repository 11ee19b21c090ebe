"""Figures of the questions: those that every sweep has, and a few of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from ntkstats import analysis, plots
from ntkstats.analysis import Interval, Phases
from ntkstats.plots import PALETTE
from studies.collective_variables._answers import HURT_AFTER, corrupted, damage
from studies.sweeps import _figures, phases_at
from studies.sweeps._report import Drawn

_BAND = "Median over seeds; the band reaches from the 10 % to the 90 % quantile."
_MEANS = "Means over seeds with their 95 % interval."


def figures(name: str, table: xr.Dataset) -> Iterator[Callable[[], Drawn]]:
    """What draws each figure of a question about one table."""
    if name in ("size", "tanh", "regression"):
        yield partial(_trajectories, table, "entropy", along="width", across="depth")
        yield partial(_trajectories, table, "trace", along="width", across="depth")
        yield partial(_map, table)
        for along in ("width", "depth"):
            yield partial(_scaling, table, along)
    elif name in ("data", "probe"):
        along = {"data": "samples", "probe": "probe"}[name]
        yield partial(_trajectories, table, "entropy", along=along, across="width")
        yield partial(_scaling, table, along)
    elif name == "starts":
        yield partial(_starts, table)
    elif name == "corruption":
        yield partial(_damage, table)
        yield partial(_trajectories, table, "entropy", along="corrupt_at", across="width")
    else:
        along = {"batch": "batch_size", "redundancy": "copies", "activation": "init"}[name]
        yield partial(_trajectories, table, "entropy", along=along, across=None)
        yield partial(_amounts, table)


def figures_of_systems(
    runs: Mapping[str, tuple[xr.Dataset, str]], found: Mapping[str, Phases]
) -> Iterator[Callable[[], Drawn]]:
    """Entropy and trace of every system, a panel each."""
    for kind in ("entropy", "trace"):
        yield partial(_overview, runs, kind)
    yield partial(_dots, found, "Phases of the entropy of every system")


def _trajectories(table: xr.Dataset, field: str, *, along: str, across: str | None) -> Drawn:
    figure = _figures.trajectories(table, field, along=along, across=across)
    return Drawn(f"trajectories-{field}", f"{field} over training", _BAND, figure)


def _map(table: xr.Dataset) -> Drawn:
    caption = (
        "How much the entropy falls in phases of compression and rises in phases of structure "
        "formation, mean over seeds; in brackets where the 95 % interval holds 0. Arrows: the "
        "phases in order; a hyphen is a plateau."
    )
    figure = _figures.phase_map(table, phases_at(table))
    return Drawn("phase-map", "Compression against structure formation", caption, figure)


def _scaling(table: xr.Dataset, along: str) -> Drawn:
    caption = f"{_MEANS} Lines are power laws, with the 95 % interval of the exponent over sizes."
    figure = _figures.scaling(table, along)
    return Drawn(f"scaling-{along}", f"Scaling with {along}", caption, figure)


def _starts(table: xr.Dataset) -> Drawn:
    caption = "Pearson correlation over seeds at fixed size, with its 95 % interval (Fisher)."
    figure = _figures.starts(table, ("entropy", "trace"), "loss_test")
    return Drawn("starting-values", "Starting values and the final test loss", caption, figure)


def _amounts(table: xr.Dataset) -> Drawn:
    return _dots(phases_at(table), "How much the entropy falls and rises")


def _dots(found: Mapping[str, Phases], title: str) -> Drawn:
    """Compression to the left, structure formation to the right, a row for each point."""
    width = float(mpl.rcParams["figure.figsize"][0])
    figure, ax = plt.subplots(figsize=(width, 0.8 + 0.19 * len(found)), layout="constrained")
    kinds = (("compression", -1, PALETTE[1]), ("structure formation", 1, PALETTE[0]))
    for row, p in enumerate(found.values()):
        for (_, side, color), part in zip(kinds, (p.compression, p.formation), strict=True):
            _bar(ax, row, side, part, color)
    ax.axvline(0, color="0.6", lw=0.6, zorder=0)
    ax.set_yticks(range(len(found)), list(found))
    ax.invert_yaxis()
    ax.set_xlabel("entropy falls by | rises by (nat)")
    ax.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{abs(v):g}"))
    handles = [mpl.lines.Line2D([], [], color=c, marker="o", ms=3, label=k) for k, _, c in kinds]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return Drawn("amounts", title, _MEANS, figure)


def _bar(ax: mpl.axes.Axes, row: int, side: int, part: Interval, color: str) -> None:
    if not np.isfinite(part.value):
        return
    ax.plot([side * part.value], [row], "o", color=color, ms=3)
    if np.isfinite(part.low):
        ax.plot([side * part.low, side * part.high], [row, row], color=color, lw=1)


def _damage(table: xr.Dataset) -> Drawn:
    """Damage against the trace when it began; a colour for each moment, a panel for each width."""
    widths = table["width"].values.tolist()
    moments = sorted(table["corrupt_at"].values.tolist())[:-1]
    colors = dict(zip(moments, _figures.shades(len(moments)), strict=True))
    figure, axes = _figures._panels(len(widths), aspect=1.0)
    for place, control in corrupted(table):
        ax = axes[widths.index(place.values["width"])]
        trace, hurt = damage(place, control)
        color = colors[place.values["corrupt_at"]]
        ax.plot(trace, hurt, "o", ms=2, alpha=0.5, color=color)
        x, y = analysis.mean_interval(trace), analysis.mean_interval(hurt)
        ax.errorbar(
            x.value,
            y.value,
            [[y.value - y.low], [y.high - y.value]] if np.isfinite(y.low) else None,
            fmt="D",
            ms=4,
            color=color,
        )
    for ax, width in zip(axes, widths, strict=True):
        ax.set_title(f"width {width}")
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        ax.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: _figures.short(v)))
    figure.supxlabel("trace when targets turn wrong", size="medium")
    axes[0].set_ylabel("test loss above control")
    handles = [
        mpl.lines.Line2D([], [], ls="", marker="D", ms=4, color=colors[m], label=f"{m}")
        for m in moments
    ]
    figure.legend(
        handles=handles, title="wrong from update", loc="outside upper center", ncols=len(moments)
    )
    caption = (
        f"Test loss after {HURT_AFTER} updates with wrong targets, less that of the same network "
        f"with right ones. Dots are seeds. {_MEANS}"
    )
    return Drawn("damage", "Late corruption and the trace", caption, figure)


def _overview(runs: Mapping[str, tuple[xr.Dataset, str]], kind: str) -> Drawn:
    figure, axes = _figures._panels(len(runs))
    for ax, (name, (ds, head)) in zip(axes, runs.items(), strict=True):
        plots.dynamics(ds, (f"{kind}{head}",), axes=ax, legend=False)
        ax.set_title(name)
        ax.set_ylabel(f"NTK {kind}" + (" (nat)" if kind == "entropy" else ""))
    _figures._once(axes)
    return Drawn(f"systems-{kind}", f"NTK {kind} of every system", _BAND, figure)
