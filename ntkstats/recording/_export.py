"""Stored runs as files for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ntkstats.errors import StoreError
from ntkstats.recording._compare import RUN
from ntkstats.recording._groups import MEMBER, STEP
from ntkstats.recording._reader import open_run


def export(run: xr.Dataset | str | os.PathLike[str], to: str | os.PathLike[str]) -> Path:
    """Write a run for other programs; an existing file is never overwritten.

    ``.nc`` holds everything as NetCDF 3 (``xarray.open_dataset`` reads it): nested attributes
    are JSON text, and complex variables are split into ``_real`` and ``_imag``. ``.csv`` holds
    what is one number a step (and member, and run), one line a step.

    Parameters
    ----------
    run
        A Dataset from `open_run` or `open_runs`, or the path of a run.
    to
        File name that ends in ``.nc`` or ``.csv``.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    StoreError
        The file exists, cannot be written, or has another suffix.
    """
    file = Path(to).expanduser()
    writer = {".nc": _write_netcdf, ".csv": _write_csv}.get(file.suffix)
    if writer is None:
        msg = f"cannot export to {file.name!r}; give a name that ends in .nc or .csv"
        raise StoreError(msg)
    ds = run if isinstance(run, xr.Dataset) else open_run(run)
    if file.exists():
        msg = f"{file} exists, and nothing is ever overwritten; choose another name"
        raise StoreError(msg)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer(ds, file)
    except OSError as error:
        msg = f"cannot write {file}: {error}; check that its folder may be written"
        raise StoreError(msg) from error
    return file


def _write_netcdf(ds: xr.Dataset, file: Path) -> None:
    flat = ds.copy()
    for name, variable in ds.data_vars.items():
        if variable.dtype.kind == "c":
            parts = {f"{name}_real": variable.real, f"{name}_imag": variable.imag}
            flat = flat.drop_vars([name]).assign(parts)
    flat = flat.assign({name: _storable(v) for name, v in flat.data_vars.items()})
    flat = flat.assign_coords({name: _storable(v) for name, v in flat.coords.items()})
    for name in flat.variables:
        flat[name].attrs = _text_attrs(flat[name].attrs)
    flat.attrs = _text_attrs(ds.attrs)
    flat.to_netcdf(file, engine="scipy", format="NETCDF3_64BIT")


def _storable(variable: xr.DataArray) -> xr.DataArray:
    """The same numbers in a type that NetCDF 3 has."""
    kind, size = variable.dtype.kind, variable.dtype.itemsize
    if kind == "f" and size < 4:
        return variable.astype(np.float32)
    if kind in "iu" and variable.size and np.abs(variable).max() > np.iinfo(np.int32).max:
        return variable.astype(np.float64)  # exact up to 2^53
    return variable


def _text_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as text and numbers; nested ones as JSON."""
    simple = (str, int, float)
    return {
        str(key): value
        if isinstance(value, simple) and not isinstance(value, bool)
        else json.dumps(value)
        for key, value in attrs.items()
    }


def _write_csv(ds: xr.Dataset, file: Path) -> None:
    tables = []
    for axis in [str(dim) for dim in ds.dims if str(dim).startswith(STEP)]:
        keys = {axis, MEMBER, RUN}
        names = [n for n, v in ds.data_vars.items() if axis in v.dims and set(v.dims) <= keys]
        if names:
            scalars = ds[names].reset_coords(drop=True).rename({axis: STEP} if axis != STEP else {})
            tables.append(scalars)
    if not tables:
        msg = f"nothing in the run is one number a step, so {file.name!r} would be empty"
        raise StoreError(msg)
    merged = xr.merge(tables, join="outer", compat="no_conflicts", combine_attrs="drop")
    frame = merged.to_dataframe().reset_index()
    if MEMBER in frame and MEMBER not in ds.coords:
        frame[MEMBER] = frame[MEMBER].astype(int)
    with file.open("x", newline="", encoding="utf-8") as handle:
        frame.to_csv(handle, index=False)
