"""The whole spectrum, and its largest eigenvalues over training."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntkstats.errors import PlotError

from ._axes import (
    Switch,
    check_switch,
    count_formatter,
    label_once,
    scale_steps,
    scale_values,
    step_colorbar,
    step_norm,
)
from ._series import axis_label, series, step_axis, summarise
from ._style import sequential

_MOST = 9  # spectra that can still be told apart in one panel


def spectra(
    ds: xr.Dataset,
    *,
    ax: Axes | None = None,
    field: str = "eigenvalues",
    steps: Sequence[int] | None = None,
    normalise: bool = True,
) -> Axes:
    """Draw eigenvalues against their index, coloured by training step.

    Both axes are logarithmic; eigenvalues that are zero or negative (rounding) are left out.
    Each line is the median over replicates.

    Parameters
    ----------
    ds
        A Dataset from `open_run` that holds `field`, ``(step, [member], n)``.
    ax
        Panel to draw into; made when omitted.
    field
        The eigenvalues.
    steps
        Recorded steps to draw; by default up to 9 of them, with the first and the last.
    normalise
        Divide by the trace, replicate by replicate, so that the line is the distribution whose
        Shannon entropy is the von Neumann entropy. The trace is the sum of the eigenvalues, or
        the recorded one where only the largest eigenvalues are stored.

    Raises
    ------
    PlotError
        The field is missing or not a vector a step, or a step was not recorded.
    """
    spectrum = series(ds, field, own=1)
    chosen = _rows(spectrum.x, steps)
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    values = -np.sort(-spectrum.values[chosen], axis=-1)
    if normalise:
        with np.errstate(invalid="ignore", divide="ignore"):  # a zero kernel has no spectrum
            values = values / _traces(ds, field, spectrum.values)[chosen][..., None]
    index = np.arange(1, values.shape[-1] + 1)
    cmap, norm = sequential(), step_norm(spectrum.x[chosen])
    for step, members in zip(spectrum.x[chosen], values, strict=True):
        median = summarise(members.T, (0.5, 0.5)).center
        positive = np.where(median > 0, median, np.nan)
        ax.plot(index, positive, color=cmap(norm(step)), label=f"{step:g}", linewidth=1.0)
    ax.set_xscale("log")
    ax.margins(x=0.02)
    ax.xaxis.set_major_formatter(count_formatter())
    ax.set_yscale("log")
    name = axis_label(ds[field], field)
    label_once(ax, "Eigenvalue index", "Eigenvalue / trace" if normalise else name)
    if len(chosen) > 1:
        step_colorbar(ax, cmap, norm, axis_label(ds[step_axis(ds[field])], "training step"))
    return ax


def eigenvalue_paths(
    ds: xr.Dataset,
    top: int = 5,
    *,
    ax: Axes | None = None,
    field: str = "eigenvalues",
    quantiles: tuple[float, float] = (0.1, 0.9),
    logx: Switch = "auto",
    logy: Switch = "auto",
) -> Axes:
    """Draw the largest eigenvalues over training.

    Parameters
    ----------
    ds
        A Dataset from `open_run` that holds `field`, ``(step, [member], n)``.
    top
        How many of the largest eigenvalues.
    ax
        Panel to draw into; made when omitted.
    field
        The eigenvalues.
    quantiles
        Edges of the band over replicates, drawn where there is more than one.
    logx, logy
        As in `dynamics`.

    Raises
    ------
    PlotError
        The field is missing or not a vector a step, or `top` is not between 1 and n.
    """
    check_switch("logx", logx)
    check_switch("logy", logy)
    spectrum = series(ds, field, own=1)
    n = spectrum.values.shape[-1]
    if not isinstance(top, int) or not 1 <= top <= n:
        msg = f"top={top!r}; expected a whole number from 1 to {n}, the eigenvalues recorded."
        raise PlotError(msg)
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    values = -np.sort(-spectrum.values, axis=-1)
    colors = sequential()(np.linspace(0.0, 1.0, top)) if top > 1 else sequential()([0.3])
    drawn = []
    for i in range(top):
        path = summarise(values[..., i], quantiles)
        mark = "o" if spectrum.x.size == 1 else None
        ax.plot(
            spectrum.x,
            path.center,
            color=colors[i],
            label=rf"$\lambda_{{{i + 1}}}$",
            marker=mark,
            markersize=2.5,
        )
        drawn.append(path.center)
        if values.shape[1] > 1:
            ax.fill_between(
                spectrum.x, path.low, path.high, color=colors[i], alpha=0.15, linewidth=0
            )
    scale_steps(ax, spectrum.x, logx)
    scale_values(ax, drawn, logy, field)
    steps = axis_label(ds[step_axis(ds[field])], "training step")
    label_once(ax, steps, axis_label(ds[field], field))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0, frameon=False)
    return ax


def _traces(ds: xr.Dataset, field: str, values: np.ndarray) -> np.ndarray:
    """Traces ``(T, M)`` of the kernels whose eigenvalues ``(T, M, k)`` are `field`."""
    if int(ds[field].attrs.get("n", 0)) <= values.shape[-1]:
        return np.clip(values, 0, None).sum(axis=-1)
    name = field.replace("eigenvalues", "trace")
    if name == field or name not in ds.data_vars:
        msg = (
            f"Field {field!r} holds {values.shape[-1]} of {ds[field].attrs['n']} eigenvalues and "
            "the run has no trace to divide by; record the trace too, or pass normalise=False."
        )
        raise PlotError(msg)
    return series(ds, name).values


def _rows(recorded: np.ndarray, steps: Sequence[int] | None) -> np.ndarray:
    if not recorded.size:
        msg = "The run holds no record yet; draw it after the first one."
        raise PlotError(msg)
    if steps is None:
        return np.unique(
            np.linspace(0, recorded.size - 1, min(_MOST, recorded.size)).round()
        ).astype(int)
    missing = [s for s in steps if s not in recorded]
    if missing or not len(steps):
        there = ", ".join(f"{s:g}" for s in recorded)
        msg = (
            f"Steps {missing} were not recorded; choose from {there}."
            if missing
            else (f"steps is empty; choose from {there}, or leave it out.")
        )
        raise PlotError(msg)
    return np.array([int(np.flatnonzero(recorded == s)[0]) for s in steps])
