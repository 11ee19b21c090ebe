"""Stored runs as files for other programs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ntkstats.errors import StoreError
from ntkstats.recording.live._groups import MEMBER, STEP
from ntkstats.recording.mirrors._optional import optional
from ntkstats.recording.store._compare import RUN
from ntkstats.recording.store._reader import open_run


def export(run: xr.Dataset | str | os.PathLike[str], to: str | os.PathLike[str]) -> Path:
    """Write a run for other programs; an existing file is never overwritten.

    ``.nc`` holds everything as NetCDF 3 (``xarray.open_dataset`` reads it): nested attributes
    are JSON text, and complex variables are split into ``_real`` and ``_imag``. ``.zarr`` is a
    folder that holds everything as it is (``xarray.open_zarr``). ``.parquet`` has one row a step
    (and member, and run); what is more than one number there is a list, and the attributes are
    JSON text in the metadata of the file. ``.csv`` holds what is one number a step (and member,
    and run), one line a step.

    Parameters
    ----------
    run
        A Dataset from `open_run` or `open_runs`, or the path of a run.
    to
        File name that ends in ``.nc``, ``.zarr``, ``.parquet`` or ``.csv``.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    StoreError
        The file exists, cannot be written, or has another suffix.
    DependencyError
        Zarr and Parquet need the extras ``ntkstats[zarr]`` and ``ntkstats[parquet]``.
    """
    file = Path(to).expanduser()
    writer = _WRITERS.get(file.suffix)
    if writer is None:
        names = ", ".join(_WRITERS)
        msg = f"cannot export to {file.name!r}; give a name that ends in one of {names}"
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
    flat = _split_complex(ds.copy())
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


def _write_zarr(ds: xr.Dataset, file: Path) -> None:
    optional("zarr", user="export to .zarr", extra="zarr")
    part = file.with_name(f"{file.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an export that was interrupted
    # Version 2 has text labels that every reader knows.
    ds.to_zarr(part, mode="w", zarr_format=2)
    part.rename(file)


def _write_parquet(ds: xr.Dataset, file: Path) -> None:
    arrow = optional("pyarrow", user="export to .parquet", extra="parquet")
    parquet = optional("pyarrow.parquet", user="export to .parquet", extra="parquet")
    merged = _by_step(_split_complex(ds), file, scalars=False)
    keys = [dim for dim in (RUN, MEMBER, STEP) if dim in merged.dims]
    sizes = [merged.sizes[key] for key in keys]
    columns: dict[str, Any] = {}
    for name, index in zip(keys, np.indices(sizes), strict=True):
        labels = merged[name].values if name in merged.coords else np.arange(merged.sizes[name])
        columns[name] = labels[index.ravel()]
    for field, variable in merged.data_vars.items():
        absent = {key: merged.sizes[key] for key in keys if key not in variable.dims}
        whole = variable.expand_dims(absent).transpose(*keys, ...)
        columns[str(field)] = whole.values.reshape(-1, *whole.shape[len(keys) :])
    table = arrow.table({name: _column(arrow, values) for name, values in columns.items()})
    about = {"ntkstats": json.dumps(_text_attrs(ds.attrs))}
    part = file.with_name(f"{file.name}.part")
    parquet.write_table(table.replace_schema_metadata(about), part)
    part.rename(file)


def _column(arrow: Any, values: np.ndarray) -> Any:
    """One entry a row: a number or label, or lists of lists of numbers of the same type."""
    if values.dtype.kind not in "biuf":
        return arrow.array(values.tolist())
    if values.dtype == np.float16:  # few programs read it
        values = values.astype(np.float32)
    kind = arrow.from_numpy_dtype(values.dtype)
    for _ in values.shape[1:]:
        kind = arrow.list_(kind)
    return arrow.array(values if values.ndim == 1 else values.tolist(), type=kind)


def _split_complex(ds: xr.Dataset) -> xr.Dataset:
    for name, variable in ds.data_vars.items():
        if variable.dtype.kind == "c":
            parts = {f"{name}_real": variable.real, f"{name}_imag": variable.imag}
            ds = ds.drop_vars([name]).assign(parts)
    return ds


def _by_step(ds: xr.Dataset, file: Path, *, scalars: bool) -> xr.Dataset:
    """Everything on one step axis, in the union of the steps."""
    tables = []
    for axis in [str(dim) for dim in ds.dims if str(dim).startswith(STEP)]:
        keys = {axis, MEMBER, RUN}
        names = [
            name
            for name, v in ds.data_vars.items()
            if axis in v.dims and (set(v.dims) <= keys or not scalars)
        ]
        if names:
            one = ds[names].reset_coords(drop=True).rename({axis: STEP} if axis != STEP else {})
            tables.append(one)
    if not tables:
        msg = f"nothing in the run is one number a step, so {file.name!r} would be empty"
        raise StoreError(msg)
    return xr.merge(tables, join="outer", compat="no_conflicts", combine_attrs="drop")


def _write_csv(ds: xr.Dataset, file: Path) -> None:
    frame = _by_step(ds, file, scalars=True).to_dataframe().reset_index()
    if MEMBER in frame and MEMBER not in ds.coords:
        frame[MEMBER] = frame[MEMBER].astype(int)
    with file.open("x", newline="", encoding="utf-8") as handle:
        frame.to_csv(handle, index=False)


_WRITERS = {
    ".nc": _write_netcdf,
    ".zarr": _write_zarr,
    ".parquet": _write_parquet,
    ".csv": _write_csv,
}
