"""Recorded numbers over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntkstats.errors import PlotError

from ._axes import Switch, check_switch, label_once, scale_steps, scale_values
from ._series import Series, as_runs, axis_label, curves, series, step_axis, summarise
from ._style import distinct

_USUAL = ("entropy", "trace", "loss", "accuracy")
_FEW = 4  # quantiles of so few replicates say less than the replicates themselves
_PANEL = 1.75  # narrowest readable panel, in inches

Members = Literal["auto", "band", "lines", "none"]


def dynamics(
    data: xr.Dataset | Mapping[str, xr.Dataset],
    fields: str | Sequence[str] | None = None,
    *,
    axes: Axes | Sequence[Axes] | np.ndarray | None = None,
    label: str | None = None,
    color: Any = None,
    linestyle: str = "-",
    quantiles: tuple[float, float] = (0.1, 0.9),
    members: Members = "auto",
    errors: Switch = "auto",
    x: str = "step",
    logx: Switch = "auto",
    logy: Switch = "auto",
    legend: bool = True,
) -> np.ndarray:
    """Draw recorded numbers over training, one panel a field.

    The line is the median over replicates (``member`` and ``run`` axes) that are finite there; it
    is dotted where some replicate is missing or not finite, and interrupted where all are.

    Parameters
    ----------
    data
        A Dataset from `open_run`, or several as ``{label: Dataset}``.
    fields
        Names of fields that are one number a step; by default entropy, trace, loss and accuracy
        as far as every dataset has them, else all such fields they share.
    axes
        Panels to draw into, one a field; a figure is made when omitted.
    label
        Name of a single dataset in the legend.
    color
        Colour of a single dataset, or ``{label: colour}``; by default the colour-blind-safe
        palette in order, continued where panels already hold labelled lines.
    linestyle
        Line style of the medians, for instance ``"--"`` to add test curves to training curves.
    quantiles
        Lower and upper edge of the band over replicates.
    members
        ``"band"``, ``"lines"`` (each replicate thinly), ``"none"``, or ``"auto"``: lines for up
        to 4 replicates and a band for more.
    errors
        Whether to draw the recorded standard error (``FIELD_stderr``) as error bars (the
        median one, for several replicates); ``"auto"`` when there is one replicate, since the
        spread of several holds such errors already.
    x
        ``"step"``, or a coordinate along the step axis such as ``"wall_time"``. A field with a
        schedule of its own is drawn over its own steps.
    logx
        Logarithmic steps; ``"auto"`` when they are spaced unevenly over 1.5 decades. Step 0 is
        kept: the axis is linear below the first step after it.
    logy
        Logarithmic values; ``"auto"`` for positive values that span more than 1.5 decades.
    legend
        Whether a figure made here gets a legend, above the panels.

    Returns
    -------
    numpy.ndarray
        The Axes, ``(n_fields,)``.

    Raises
    ------
    PlotError
        A field is missing or not one number a step, or the arguments do not fit together.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> import xarray as xr
    >>> from ntkstats import plots
    >>> ds = xr.Dataset({"entropy": ("step", [2.0, 1.5, 1.2])}, coords={"step": [0, 10, 100]})
    >>> [ax.get_ylabel() for ax in plots.dynamics(ds)]
    ['Entropy']
    """
    runs = as_runs(data, label)
    names = _fields(runs, fields)
    for option, value in (("logx", logx), ("logy", logy), ("errors", errors)):
        check_switch(option, value)
    _check(quantiles, members)
    taken = [{key: series(ds, name, x=x, where=key) for key, ds in runs.items()} for name in names]
    panels, made = _panels(axes, len(names))
    colors = _colors(color, runs, panels[0])
    for ax, name, curve in zip(panels, names, taken, strict=True):
        drawn = []
        for key, one in curve.items():
            drawn += _draw(ax, one, key, colors[key], linestyle, quantiles, members, errors)
        scale_steps(
            ax, np.concatenate([s.x for s in curve.values()]), logx if x == "step" else False
        )
        scale_values(ax, drawn, logy, name)
        some = next(iter(runs.values()))
        label_once(ax, None, axis_label(some[name], name))
        if not made or ax.get_subplotspec().is_last_row():
            label_once(ax, _x_label(some, name, x), None)
    if made:
        _finish(panels, legend and any(runs))
    return panels


def _check(quantiles: tuple[float, float], members: str) -> None:
    if len(quantiles) != 2 or not 0 <= quantiles[0] <= quantiles[1] <= 1:
        msg = f"quantiles={quantiles!r}; expected (low, high) with 0 <= low <= high <= 1."
        raise PlotError(msg)
    if members not in ("auto", "band", "lines", "none"):
        msg = f"members={members!r}; expected 'auto', 'band', 'lines' or 'none'."
        raise PlotError(msg)


def _fields(runs: Mapping[str, xr.Dataset], fields: str | Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(fields, str):
        return (fields,)
    if fields is not None:
        if not fields:
            msg = "fields is empty; name at least one field, or leave it out."
            raise PlotError(msg)
        return tuple(fields)
    per_run = [curves(ds) for ds in runs.values()]
    shared = [name for name in per_run[0] if all(name in others for others in per_run)]
    if not shared:
        there = "; ".join(
            f"{k or 'run'}: {', '.join(c) or 'none'}" for k, c in zip(runs, per_run, strict=True)
        )
        msg = f"No field that is one number a step is in every dataset ({there}); pass fields=."
        raise PlotError(msg)
    # a field of one head or probe carries its name: entropy_actor stands beside entropy
    usual = [name for stem in _USUAL for name in shared if name.split("_")[0] == stem]
    return tuple(usual or shared)


def _panels(axes: Any, n: int) -> tuple[np.ndarray, bool]:
    if axes is None:
        width = float(mpl.rcParams["figure.figsize"][0])
        most = max(1, min(n, int(width / _PANEL)))
        rows = math.ceil(n / most)
        columns = math.ceil(n / rows)
        size = (width, rows * width / columns * (0.62 if columns == 1 else 0.8))
        figure, grid = plt.subplots(
            rows, columns, figsize=size, squeeze=False, layout="constrained"
        )
        for spare in grid.ravel()[n:]:
            figure.delaxes(spare)
        return grid.ravel()[:n], True
    panels = np.empty(n, dtype=object)
    given = [axes] if isinstance(axes, Axes) else list(np.ravel(np.asarray(axes, dtype=object)))
    if len(given) != n or not all(isinstance(ax, Axes) for ax in given):
        msg = f"Got {len(given)} axes for {n} fields; pass one matplotlib Axes a field."
        raise PlotError(msg)
    panels[:] = given
    return panels, False


def _colors(color: Any, runs: Mapping[str, xr.Dataset], ax: Axes) -> dict[str, Any]:
    if isinstance(color, Mapping):
        missing = [k for k in runs if k not in color]
        if missing:
            msg = f"color has no entry for {', '.join(map(repr, missing))}; name every label."
            raise PlotError(msg)
        return {k: color[k] for k in runs}
    if color is not None and len(runs) > 1:
        msg = f"color={color!r} for {len(runs)} datasets; pass a mapping from label to colour."
        raise PlotError(msg)
    if color is not None:
        return dict.fromkeys(runs, color)
    before = len(ax.get_legend_handles_labels()[1])
    return dict(zip(runs, distinct(before + len(runs))[before:], strict=True))


def _draw(
    ax: Axes,
    curve: Series,
    label: str,
    color: Any,
    linestyle: str,
    quantiles: tuple[float, float],
    members: Members,
    errors: Switch,
) -> list[np.ndarray]:
    """Draw one curve; return what was drawn, for the choice of scale."""
    summary = summarise(curve.values, quantiles)
    count = curve.values.shape[1]
    whole = np.where(summary.finite == count, summary.center, np.nan)
    _line(ax, curve.x, whole, label or "_nolegend_", color=color, linestyle=linestyle, zorder=3)
    if ((summary.finite > 0) & (summary.finite < count)).any():
        some = np.where(_beside(summary.finite < count), summary.center, np.nan)
        _line(ax, curve.x, some, "_nolegend_", color=color, linestyle=":", zorder=2.9)
    drawn = [summary.center]
    how = ("lines" if count <= _FEW else "band") if members == "auto" else members
    if count > 1 and how == "band":
        ax.fill_between(
            curve.x, summary.low, summary.high, color=color, alpha=0.2, linewidth=0, zorder=1
        )
        drawn += [summary.low, summary.high]
    elif count > 1 and how == "lines":
        ax.plot(curve.x, curve.values, color=color, alpha=0.45, linewidth=0.6, zorder=2)
        drawn.append(curve.values)
    if curve.stderr is not None and (count == 1 if errors == "auto" else errors):
        bars = summarise(curve.stderr, quantiles).center
        ax.errorbar(
            curve.x, summary.center, yerr=bars, fmt="none", ecolor=color, elinewidth=0.8, zorder=2
        )
    return drawn


def _line(ax: Axes, x: np.ndarray, y: np.ndarray, label: str, **look: Any) -> None:
    lonely = _lonely(y)
    mark: dict[str, Any] = {"marker": "o", "markersize": 2.5, "markevery": lonely}
    ax.plot(x, y, label=label, **look, **(mark if lonely else {}))


def _lonely(values: np.ndarray) -> list[int]:
    """Find points without a finite neighbour, which a line would not show."""
    there = np.concatenate([[False], np.isfinite(values), [False]])
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()


def _beside(mask: np.ndarray) -> np.ndarray:
    """Widen a mask by its neighbours, so that a dotted piece meets the solid one."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    return wide


def _x_label(ds: xr.Dataset, name: str, x: str) -> str:
    if x == "step":
        return axis_label(ds[step_axis(ds[name])], "training step")
    return axis_label(ds[x], x)


def _finish(panels: np.ndarray, legend: bool) -> None:
    figure = panels[0].get_figure()
    if len(panels) > 1:
        figure.align_ylabels(panels)
    if legend:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=min(len(labels), 4), frameon=False
        )
