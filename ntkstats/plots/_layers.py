"""How the layers share the trace of the kernel."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntkstats.errors import PlotError

from ._axes import Switch, check_switch, label_once, scale_steps
from ._series import axis_label, own_axes, series, step_axis, variable_named
from ._style import sequential


def layer_shares(
    ds: xr.Dataset,
    *,
    ax: Axes | None = None,
    field: str | None = None,
    logx: Switch = "auto",
) -> Axes:
    """Draw the shares of the layers in the NTK trace over training, stacked from the first layer.

    Parameters
    ----------
    ds
        A Dataset from `open_run` with a field over a ``layer`` axis.
    ax
        Panel to draw into; made when omitted.
    field
        The layers' traces or shares, ``(step, [member], layer)``; by default the only field over
        ``layer``. Entries are divided by their sum, then averaged over finite replicates (medians
        would not add up to 1).
    logx
        As in `dynamics`.

    Raises
    ------
    PlotError
        There is no such field, or several to choose from.
    """
    check_switch("logx", logx)
    name = _field(ds) if field is None else field
    variable = variable_named(ds, name)
    taken = series(ds, name, own=1)
    if own_axes(variable) != ("layer",):
        msg = f"Field {name!r} has the axis {taken.own[0]!r}; expected 'layer'."
        raise PlotError(msg)
    shares = _mean_shares(taken.values)
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    n = shares.shape[1]
    layers = (
        [str(v) for v in ds["layer"].values] if "layer" in ds.coords else [str(i) for i in range(n)]
    )
    colors = sequential()(np.linspace(0.0, 1.0, n)) if n > 1 else sequential()([0.3])
    ax.stackplot(
        taken.x, shares.T, labels=layers, colors=list(colors), edgecolor="white", linewidth=0.4
    )
    ax.set_ylim(0, 1)
    scale_steps(ax, taken.x, logx)
    ax.margins(x=0)
    steps = axis_label(ds[step_axis(variable)], "training step")
    label_once(ax, steps, "Share of the NTK trace")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(  # in the order of the stack
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.0,
        frameon=False,
    )
    return ax


def _field(ds: xr.Dataset) -> str:
    there = [str(n) for n, v in ds.data_vars.items() if own_axes(v) == ("layer",) and step_axis(v)]
    there = [n for n in there if "stderr" not in n.split("_")]
    if len(there) == 1:
        return there[0]
    if there:
        msg = f"Several fields run over layers: {', '.join(there)}; choose one with field=."
    else:
        held = ", ".join(sorted(map(str, ds.data_vars))) or "nothing"
        msg = (
            f"No field runs over a 'layer' axis; the run holds {held}. "
            "Record the layers' shares with the NTK collector."
        )
    raise PlotError(msg)


def _mean_shares(values: np.ndarray) -> np.ndarray:
    """Mean over finite replicates of ``(T, M, L)`` normalised over L; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = values / values.sum(axis=-1, keepdims=True)
    whole = np.isfinite(shares).all(axis=-1, keepdims=True)
    total = np.where(whole, shares, 0.0).sum(axis=1)
    count = whole.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
