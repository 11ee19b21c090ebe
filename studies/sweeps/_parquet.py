"""The table of a sweep as a file for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from ntkstats.errors import DependencyError
from studies._errors import StudyError
from studies.sweeps._table import STEP


def to_parquet(table: xr.Dataset, file: Path) -> Path:
    """Write one row a point, seed and record; an existing file is replaced.

    Rows where a run has no record are left out. Coordinates along the grid are columns; those
    that are the same everywhere, and the attributes, are JSON in the metadata under ``ntkstats``.

    Raises
    ------
    DependencyError
        pyarrow is missing.
    StudyError
        `table` is not one of `studies.sweeps.table`.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        msg = f'Parquet needs pyarrow ({error}); pip install "ntkstats[parquet]"'
        raise DependencyError(msg) from error
    if "recorded" not in table or STEP not in table.dims:
        msg = "to_parquet takes a table of a sweep; for other Datasets use ntkstats export."
        raise StudyError(msg)
    dims = [*(str(d) for d in table["diverged"].dims), STEP]
    shape = {d: table.sizes[d] for d in dims}
    kept = _spread(table["recorded"], shape).ravel()
    columns = {}
    names = [*dims, *(n for n in table.coords if n not in dims and table[n].dims)]
    names += [n for n in table.data_vars if n != "recorded"]
    for name in map(str, names):
        columns[name] = arrow.array(_spread(table[name], shape).ravel()[kept].tolist())
    constant = {str(n): c.values.tolist() for n, c in table.coords.items() if not c.dims}
    about = {**table.attrs, "constant": constant}
    written = arrow.table(columns).replace_schema_metadata({"ntkstats": json.dumps(about)})
    part = file.with_name(f"{file.name}.part")
    parquet.write_table(written, part)
    part.replace(file)
    return file


def _spread(variable: xr.DataArray, shape: dict[str, int]) -> np.ndarray:
    """The variable over all dims."""
    return variable.variable.set_dims(shape).transpose(*shape).values
