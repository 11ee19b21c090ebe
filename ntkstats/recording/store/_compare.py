"""Several runs side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ntkstats.errors import RunMismatchError, RunNotFoundError
from ntkstats.recording.store._reader import open_run
from ntkstats.recording.store._store import store_path

RUN = "run"
"""Axis of the runs."""

# Sizes are what studies vary; what a number means must be the same.
_MAY_DIFFER = frozenset({"long_name", "n", "n_samples", "n_outputs"})


def open_runs(
    paths: Iterable[str | os.PathLike[str]], *, labels: Sequence[str] | None = None
) -> xr.Dataset:
    """Several stored runs as one Dataset with a leading axis ``run``.

    Step axes and labelled axes (layers) are united, unlabelled ones (eigenvalues) get the length
    of the longest; where a run has no number it is NaN. Entries of the config that are single
    numbers or strings and differ between the runs become coordinates along ``run``.

    Parameters
    ----------
    paths
        At least one run.
    labels
        Names along ``run``, all different; by default the file names without suffix.

    Raises
    ------
    RunMismatchError
        A variable has other units, another definition (entropy convention, outputs, estimator)
        or other axes in one of the runs: numbers that mean different things are not put on one
        axis.
    RunNotFoundError
        No path was given, or there is no run at one of them.
    """
    files = [store_path(path) for path in paths]
    if not files:
        msg = "no run was given; pass a list of paths, such as those that list_runs finds"
        raise RunNotFoundError(msg)
    names = [file.stem for file in files] if labels is None else [str(label) for label in labels]
    if len(names) != len(files) or len(set(names)) < len(names):
        msg = f"{len(files)} runs need as many different labels, got {names}; pass labels=[...]"
        raise RunMismatchError(msg)
    runs = [open_run(file) for file in files]
    for name, run in zip(names[1:], runs[1:], strict=True):
        _check_comparable(names[0], runs[0], name, run)
    configs = _differing([run.attrs.get("config") for run in runs])
    seeds = _differing([{"seed": run.attrs.get("seed")} for run in runs])
    combined = xr.concat(
        [_numbered(run.drop_vars("seed", errors="ignore")) for run in runs],
        dim=xr.DataArray(names, dims=RUN, name=RUN),
        data_vars="all",
        coords="different",
        compat="equals",
        join="outer",
        combine_attrs="drop_conflicts",
    )
    unlabelled = {dim for run in runs for dim in run.dims if dim not in run.coords}
    combined = combined.drop_vars(unlabelled)
    labelled = {name: (RUN, values) for name, values in {**seeds, **configs}.items()}
    return combined.assign_coords(
        {k: v for k, v in labelled.items() if k not in combined.variables}
    )


def _numbered(run: xr.Dataset) -> xr.Dataset:
    """Label every axis, so that shorter ones are filled up with NaN at their end."""
    return run.assign_coords({d: np.arange(n) for d, n in run.sizes.items() if d not in run.coords})


def _check_comparable(first: str, one: xr.Dataset, second: str, other: xr.Dataset) -> None:
    """Refuse variables that mean different things."""
    for name in one.data_vars.keys() & other.data_vars.keys():
        a, b = one[name], other[name]
        facts_a, facts_b = _meaning(a), _meaning(b)
        differing = [
            f"{key} is {facts_a.get(key)!r} and {facts_b.get(key)!r}"
            for key in sorted(facts_a.keys() | facts_b.keys())
            if facts_a.get(key) != facts_b.get(key)
        ]
        if differing:
            msg = (
                f"{name!r} does not mean the same in {first!r} and {second!r}: "
                f"{'; '.join(differing)}. Compare runs that were recorded in one convention"
            )
            raise RunMismatchError(msg)


def _meaning(variable: xr.DataArray) -> dict[str, Any]:
    own = {k: v for k, v in variable.attrs.items() if k not in _MAY_DIFFER}
    return {**own, "axes": tuple(variable.dims)}


def _differing(configs: Sequence[Any]) -> dict[str, np.ndarray]:
    """``{name: one value a run}`` for entries that are plain and not the same in all runs."""
    if not all(isinstance(config, dict) for config in configs):
        return {}
    shared = [k for k in configs[0] if all(k in config for config in configs)]
    found = {}
    for key in shared:
        values = [config[key] for config in configs]
        plain = all(isinstance(value, bool | int | float | str) for value in values)
        if plain and len(set(values)) > 1:
            found[key] = np.asarray(values)
    return found
