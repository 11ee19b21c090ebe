"""What is drawn: numbers, labels and replicates taken from a stored run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntkstats.errors import PlotError

REPLICATES = ("member", "run")


class Series(NamedTuple):
    """One field of one dataset.

    Attributes
    ----------
    x
        Where it was recorded, ``(T,)``.
    values
        ``(T, M, *own)`` in float64; M replicates (seeds, runs), own axes last.
    stderr
        Standard errors, shaped like `values`, or None.
    own
        Names of the own axes.
    """

    x: np.ndarray
    values: np.ndarray
    stderr: np.ndarray | None
    own: tuple[str, ...]


class Summary(NamedTuple):
    """Median and band over replicates at each step, each ``(T,)``.

    `finite` counts the replicates that entered; statistics are NaN where it is 0.
    """

    center: np.ndarray
    low: np.ndarray
    high: np.ndarray
    finite: np.ndarray


def as_runs(
    data: xr.Dataset | Mapping[str, xr.Dataset], label: str | None
) -> dict[str, xr.Dataset]:
    """Give every dataset a name: its key, the label given, or nothing (``""``)."""
    if isinstance(data, xr.Dataset):  # which is a Mapping too
        return {label or "": data}
    given: Any = data
    if not isinstance(given, Mapping) or not all(isinstance(d, xr.Dataset) for d in given.values()):
        msg = (
            f"Got {type(data).__name__}; expected an xarray Dataset as open_run gives it, "
            "or a mapping from labels to such Datasets."
        )
        raise PlotError(msg)
    if not given:
        msg = "Got an empty mapping; pass at least one labelled Dataset."
        raise PlotError(msg)
    if label is not None:
        msg = f"label={label!r} was given with a mapping, whose keys are the labels; drop one."
        raise PlotError(msg)
    return {str(k): d for k, d in given.items()}


def step_axis(variable: xr.DataArray) -> str | None:
    """Name of the variable's step axis: ``step``, or one of its own such as ``step_every_10``."""
    for dim in map(str, variable.dims):
        if dim == "step" or dim.startswith("step_"):
            return dim
    return None


def own_axes(variable: xr.DataArray) -> tuple[str, ...]:
    """Axes that are neither steps nor replicates."""
    known = {step_axis(variable), *REPLICATES}
    return tuple(str(d) for d in variable.dims if d not in known)


def curves(ds: xr.Dataset) -> tuple[str, ...]:
    """Names of the fields that are one number a step (and replicate)."""
    return tuple(
        str(name)
        for name, v in ds.data_vars.items()
        if step_axis(v) is not None
        and not own_axes(v)
        and np.issubdtype(v.dtype, np.number)
        and "stderr" not in str(name).split("_")
    )


def variable_named(ds: xr.Dataset, name: str, where: str = "") -> xr.DataArray:
    """Look up a field; a missing one is answered with those that are there."""
    if name in ds.data_vars:
        return ds[name]
    there = sorted(map(str, ds.data_vars))
    close = difflib.get_close_matches(name, there, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    place = f" of {where!r}" if where else ""
    msg = f"No field {name!r} in the run{place}; it holds {', '.join(there) or 'nothing'}.{hint}"
    raise PlotError(msg)


def series(
    ds: xr.Dataset,
    name: str,
    *,
    x: str = "step",
    own: int = 0,
    where: str = "",
) -> Series:
    """Take field `name` with `own` axes of its own out of a dataset.

    Raises
    ------
    PlotError
        The field or the abscissa is missing, or has other axes than needed.
    """
    variable = variable_named(ds, name, where)
    axis, extra = step_axis(variable), own_axes(variable)
    if axis is None or len(extra) != own:
        wanted = {0: "one number a step", 1: "one vector a step"}[own]
        msg = (
            f"Field {name!r} has axes {tuple(variable.dims)}; expected {wanted} "
            "(a step axis, perhaps 'member' or 'run'"
            + (", and one axis of its own). " if own else "). ")
            + "Select an entry first, for example with ds.isel."
        )
        raise PlotError(msg)
    abscissa = _abscissa(ds, axis, x, name)
    values = _steps_first(variable, axis, extra)
    stderr = None
    if (errors_name := _stderr_name(ds, name)) is not None:
        errors = ds[errors_name].broadcast_like(variable)
        stderr = _steps_first(errors, axis, extra)
    return Series(abscissa, values, stderr, extra)


def _stderr_name(ds: xr.Dataset, name: str) -> str | None:
    """Find the standard error of a field: ``loss_stderr``, ``loss_stderr_test`` of a probe."""
    parts = name.split("_")
    for i in range(len(parts), 0, -1):
        candidate = "_".join([*parts[:i], "stderr", *parts[i:]])
        if candidate in ds.data_vars:
            return candidate
    return None


def _abscissa(ds: xr.Dataset, axis: str, x: str, name: str) -> np.ndarray:
    key = axis if x == "step" else x
    # schedules of their own have their own companions, such as wall_time_every_10
    if x != "step" and axis != "step" and x + axis.removeprefix("step") in ds.variables:
        key = x + axis.removeprefix("step")
    if key not in ds.variables or ds[key].dims != (axis,):
        there = sorted(str(n) for n, v in ds.variables.items() if v.dims == (axis,))
        msg = (
            f"x={x!r} cannot be drawn against field {name!r}: expected a quantity along "
            f"{axis!r} only, such as {', '.join(there) or 'a coordinate with the step numbers'}."
        )
        raise PlotError(msg)
    return np.asarray(ds[key].values, dtype=np.float64)


def _steps_first(variable: xr.DataArray, axis: str, extra: Sequence[str]) -> np.ndarray:
    replicates = [d for d in REPLICATES if d in variable.dims]
    array = variable.transpose(axis, *replicates, *extra).values.astype(np.float64)
    own = array.shape[1 + len(replicates) :]
    array = array.reshape((array.shape[0], -1, *own)) if array.size else array.reshape(0, 1, *own)
    return np.where(np.isfinite(array), array, np.nan)


def summarise(values: np.ndarray, quantiles: tuple[float, float]) -> Summary:
    """Median and quantiles ``(T,)`` over the finite replicates of ``(T, M)``."""
    finite = np.isfinite(values).sum(axis=1)
    stats = np.full((3, values.shape[0]), np.nan)
    if (finite > 0).any():  # nanquantile warns about rows without a number
        stats[:, finite > 0] = np.nanquantile(values[finite > 0], (0.5, *quantiles), axis=1)
    return Summary(stats[0], stats[1], stats[2], finite)


def axis_label(variable: xr.DataArray, fallback: str) -> str:
    """Readable name with its unit: ``Trace``, ``Von Neumann entropy (nat)``."""
    text = str(variable.attrs.get("long_name") or fallback.replace("_", " ")).strip()
    if text[:2].isascii() and text[:2].isalpha() and text[:2].islower():
        text = text[0].upper() + text[1:]
    units = str(variable.attrs.get("units") or "1")
    return text if units in ("1", "") else f"{text} ({units})"
