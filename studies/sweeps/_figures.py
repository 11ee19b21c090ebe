"""Figures of a table, at a venue's width, in colours that everybody can tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkstats import analysis, plots
from ntkstats.analysis import Interval, Phases
from ntkstats.plots import PALETTE
from studies._errors import StudyError
from studies.sweeps._numbers import (
    Place,
    check_field,
    ends,
    grid_dims,
    places,
    sizes,
    starting_values,
)
from studies.sweeps._table import SEED

_ARROW = {"compression": "↓", "structure formation": "↑", "plateau": "-"}
_MOST_PANELS = 12


def trajectories(
    table: xr.Dataset, field: str, *, along: str | None = None, across: str | None = None
) -> Figure:
    """Draw a field over training: a colour for each value of `along`, a panel of `across`.

    By default these are the first two dims of the grid; what else varies has panels too.
    """
    check_field(table, field)
    dims = [d for d in grid_dims(table) if table.sizes[d] > 1] or list(grid_dims(table)[:1])
    along = along or dims[0]
    rest = [d for d in dims if d != along]
    rest = ([across] if across else []) + [d for d in rest if d != across]
    by_panel: dict[str, dict[str, xr.Dataset]] = {}
    for place in places(table):
        panel = ", ".join(f"{d} {place.values[d]}" for d in rest)
        name = str(place.values[along])
        by_panel.setdefault(panel, {})[name] = place.data.rename({SEED: "member"})
    names = [str(v) for v in table[along].values.tolist()]
    colors = dict(zip(names, shades(len(names)), strict=True))
    figure, axes = _panels(len(by_panel), share=True)
    log = _spans_decades(field, table[field].values)
    for ax, (title, runs) in zip(axes, by_panel.items(), strict=True):
        shown = {name: runs[name] for name in names if name in runs}
        plots.dynamics(shown, (field,), axes=ax, color=colors, logy=log)
        ax.set_title(title)
    _once(axes)
    handles = [mpl.lines.Line2D([], [], color=colors[n], label=n) for n in names]
    figure.legend(
        handles=handles, title=along, loc="outside upper center", ncols=min(len(names), 8)
    )
    return figure


def shades(n: int) -> list[Any]:
    """`n` colours in order, from dark to light, told apart by lightness alone."""
    if n == 1:
        return [PALETTE[0]]
    return [tuple(c) for c in mpl.colormaps["viridis"](np.linspace(0.0, 0.8, n))]


def phase_map(
    table: xr.Dataset,
    found: Mapping[str, Phases],
    *,
    x: str | None = None,
    y: str | None = None,
    units: str = "nat",
) -> Figure:
    """Map compression against structure formation over two sizes; one row for what else varies.

    Left and middle: how much of each, mean over seeds. Right: which prevails, and the phases in
    order as arrows (down: compression; up: structure formation; hyphen: plateau); amounts whose
    interval holds 0 are in brackets.
    """
    known = sizes(table)
    x = x or next((d for d in ("width", *known) if d in known), None)
    y = y or next((d for d in ("depth", *known) if d in known and d != x), None)
    if x is None or y is None:
        msg = "A phase map needs two fields of numbers in the grid, such as width and depth."
        raise StudyError(msg)
    rest = [d for d in grid_dims(table) if d not in (x, y)]
    rows: dict[str, list[Place]] = {}
    for place in places(table):
        if place.label in found:
            rows.setdefault(", ".join(f"{place.values[d]}" for d in rest), []).append(place)
    if not rows:
        msg = "A phase map needs the phases of at least one point; pass those of phases_at(table)."
        raise StudyError(msg)
    width = float(mpl.rcParams["figure.figsize"][0])
    figure, grid = plt.subplots(
        len(rows), 3, figsize=(width, len(rows) * width * 0.36), squeeze=False, layout="constrained"
    )
    amounts = [(p.compression.value, p.formation.value) for p in found.values()]
    top = float(np.nanmax(np.array(amounts), initial=0.0)) or 1.0
    titles = ("compression", "structure formation", "formation - compression")
    for axes, (name, here) in zip(grid, rows.items(), strict=True):
        layers = _layers(table, here, found, x, y)
        for ax, (values, texts), title in zip(axes, layers, titles, strict=True):
            share = title == titles[2]
            image = ax.imshow(
                values,
                origin="lower",
                aspect="auto",
                cmap="PuOr_r" if share else "cividis",
                vmin=-top if share else 0,
                vmax=top,
            )
            _write(ax, values, texts, image)
            ax.set_xticks(range(table.sizes[x]), [f"{v:g}" for v in table[x].values])
            ax.set_yticks(range(table.sizes[y]), [f"{v:g}" for v in table[y].values])
            ax.set_xlabel(x)
            ax.set_title(title)
            ax.spines[:].set_visible(False)
            bar = figure.colorbar(image, ax=ax, aspect=25, pad=0.03)
            bar.outline.set_visible(False)
            if share:
                bar.set_label(units)
        axes[0].set_ylabel(f"{name}\n{y}" if name else y)
    return figure


def _layers(
    table: xr.Dataset, here: Sequence[Place], found: Mapping[str, Phases], x: str, y: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers and texts of the three maps."""
    shape = (table.sizes[y], table.sizes[x])
    numbers = [np.full(shape, np.nan) for _ in range(3)]
    texts = [np.full(shape, "", dtype=object) for _ in range(3)]
    xs, ys = table[x].values.tolist(), table[y].values.tolist()
    for place in here:
        phases = found[place.label]
        at = (ys.index(place.values[y]), xs.index(place.values[x]))
        for i, part in enumerate((phases.compression, phases.formation)):
            numbers[i][at] = part.value
            texts[i][at] = _amount(part)
        numbers[2][at] = phases.formation.value - phases.compression.value
        texts[2][at] = "".join(_ARROW[k] for k in phases.kinds)
    return list(zip(numbers, texts, strict=True))


def _amount(part: Interval) -> str:
    if np.isnan(part.value):
        return "?"
    text = f"{part.value:.2f}"
    return text if part.sign or part.value == 0 else f"({text})"


def _write(ax: Axes, values: np.ndarray, texts: np.ndarray, image: Any) -> None:
    for (row, column), text in np.ndenumerate(texts):
        if np.isnan(values[row, column]):
            continue
        red, green, blue, _ = image.cmap(image.norm(values[row, column]))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        color = "black" if light else "white"
        # the serif face of papers has no arrows
        family = "DejaVu Sans" if set(text) <= set(_ARROW.values()) else None
        ax.text(column, row, text, ha="center", va="center", color=color, family=family, size=7)


def scaling(table: xr.Dataset, along: str, fields: Sequence[str] = ("entropy", "trace")) -> Figure:
    """Draw a field at the start and at the end of training against a size.

    Points are means over seeds with their 95 % interval; what else varies in the grid has colours.
    Lines are power laws, whose exponents the legend gives with their intervals.
    """
    if along not in sizes(table):
        has = ", ".join(sizes(table)) or "none"
        msg = f"The grid has no several positive numbers of {along!r}; it has them of: {has}."
        raise StudyError(msg)
    for field in fields:
        check_field(table, field)
    rest = [d for d in grid_dims(table) if d != along and table.sizes[d] > 1]
    groups: dict[str, list[Place]] = {}
    for place in places(table):
        groups.setdefault(", ".join(f"{d} {place.values[d]}" for d in rest), []).append(place)
    colors = dict(zip(groups, shades(len(groups)), strict=True))
    figure, axes = _panels(len(fields) * 2, columns=2, aspect=0.75)
    pairs = list(itertools.product(fields, (0, 1)))
    for ax, (field, end) in zip(axes, pairs, strict=True):
        for i, (name, here) in enumerate(groups.items()):
            law = _scale(ax, here, along, field, end, colors[name])
            ax.text(
                1.02,
                0.98 - 0.13 * i,
                law,
                transform=ax.transAxes,
                color=colors[name],
                va="top",
                size=6,
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(table[along].values.tolist(), [f"{v:g}" for v in table[along].values])
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5), numticks=8))
        ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: short(v)))
        ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        ax.set_xlabel(along)
        ax.set_ylabel(f"{field}, {'end' if end else 'start'}")
    if len(groups) > 1:
        handles = [mpl.lines.Line2D([], [], color=colors[n], label=n) for n in groups]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(groups), 5))
    return figure


def short(value: float) -> str:
    """A number for an axis: plain, or with a power of ten where that is shorter."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    digits = f"{float(mantissa):g}"
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if digits == "1" else rf"${digits}\times {power}$"


def _scale(ax: Axes, here: Sequence[Place], along: str, field: str, end: int, color: Any) -> str:
    x = np.array([float(p.values[along]) for p in here])
    values = [ends(p, field)[end] for p in here]
    means = [analysis.mean_interval(v) for v in values]
    y = np.array([m.value for m in means])
    error = np.array([[m.value - m.low for m in means], [m.high - m.value for m in means]])
    ax.errorbar(x, y, np.nan_to_num(error), fmt="o", ms=3, color=color, lw=0.8)
    law = analysis.power_law(x, np.stack(values))
    if np.isfinite(law.exponent.value):
        line = np.geomspace(x.min(), x.max(), 50)
        ax.plot(line, law.factor * line**law.exponent.value, color=color, lw=0.8)
    return f"exponent {_said(law.exponent)}"


def starts(table: xr.Dataset, fields: Sequence[str], final: str) -> Figure:
    """Draw how starting values correlate with a final one over seeds, at every point and pooled."""
    for field in (*fields, final):
        check_field(table, field)
    found = [starting_values(table, field, final) for field in fields]
    labels = list(found[0][0])
    width = float(mpl.rcParams["figure.figsize"][0])
    height = 0.7 + 0.17 * (len(labels) + 1)
    figure, axes = plt.subplots(
        1, len(fields), figsize=(width, height), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, field, (each, pooled) in zip(axes[0], fields, found, strict=True):
        rows = [*each.values(), pooled]
        for row, part in enumerate(rows):
            color = PALETTE[1] if row == len(labels) else PALETTE[0]
            if np.isfinite(part.value):
                ax.plot([part.low, part.high], [row, row], color=color, lw=1)
                ax.plot([part.value], [row], "D" if row == len(labels) else "o", color=color, ms=3)
        ax.axvline(0, color="0.6", lw=0.6, zorder=0)
        ax.set_xlim(-1.05, 1.05)
        ax.set_xlabel("correlation over seeds")
        ax.set_title(f"{field} at the start, {final} at the end")
    axes[0, 0].set_yticks(range(len(labels) + 1), [*labels, "pooled"])
    axes[0, 0].invert_yaxis()
    return figure


def _said(part: Interval) -> str:
    if np.isnan(part.low):
        return f"{part.value:.2f}"
    return f"{part.value:.2f} [{part.low:.2f}, {part.high:.2f}]"


def _spans_decades(field: str, values: np.ndarray) -> bool:
    """Whether the panels are to have a logarithmic scale, all of them."""
    finite = values[np.isfinite(values)]
    if not finite.size or field.startswith("accuracy") or finite.min() <= 0:
        return False
    return bool(finite.max() > 30 * finite.min())


def _panels(
    n: int, columns: int = 3, aspect: float = 0.85, *, share: bool = False
) -> tuple[Figure, list[Axes]]:
    if n > _MOST_PANELS:
        msg = f"{n} panels are more than a page holds ({_MOST_PANELS}); select first."
        raise StudyError(msg)
    columns = min(columns, n)
    rows = -(-n // columns)
    width = float(mpl.rcParams["figure.figsize"][0])
    size = (width, rows * width / max(columns, 2) * aspect + 0.4)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained", sharey=share
    )
    for spare in grid.ravel()[n:]:
        figure.delaxes(spare)
    return figure, list(grid.ravel()[:n])


def _once(axes: Sequence[Axes]) -> None:
    """Say what the ordinate is in the first column alone."""
    for ax in axes:
        spec = ax.get_subplotspec()
        if spec is not None and not spec.is_first_col():
            ax.set_ylabel("")
