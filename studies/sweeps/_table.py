"""All runs of a sweep as one labelled table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from ntkstats.errors import NtkStatsError
from ntkstats.recording import list_runs, open_run
from studies._errors import StudyError
from studies._folder import digest, read_json, task_folder
from studies._settings import show
from studies._study import Study
from studies.sweeps._sweep import Sweep, stored_sweep
from studies.sweeps._work import TASK, failure_in

TASK_DIM, SEED, STEP = "task", "seed", "step"

# Attributes of a field in which runs of one table must agree.
_MEANING = ("units", "convention", "outputs", "average_outputs", "estimator")

Align = Literal["union", "common", "same"]


class Entry(NamedTuple):
    """One task at one point of the grid.

    Attributes
    ----------
    place
        Index along every dim of the grid, and of the task.
    point, task
        Configs.
    id
        Of the task.
    status
        ``"finished"``, ``"failed"``, ``"lost"``, ``"missing"``.
    code
        Fingerprint of the code that made it, if it is finished.
    run
        The recorded run, if it is finished.
    """

    place: tuple[int, ...]
    point: Any
    task: Any
    id: str
    status: str
    code: str
    run: xr.Dataset | None


def table(folder: Path, study: Study | None = None, *, align: Align = "union") -> xr.Dataset:
    """Every number a step of every run of a sweep, in one Dataset.

    Parameters
    ----------
    folder
        Of the sweep.
    study
        By default the one of that name.
    align
        What to do where runs were recorded at different steps: ``"union"`` keeps all steps, with
        NaN where a run has no record; ``"common"`` keeps those that all runs share; ``"same"``
        raises if they differ.

    Returns
    -------
    xarray.Dataset
        Dims: every field of the grid, ``task`` if a point has several, ``seed`` (members of the
        ensemble; times the values of ``seed``, if that is in the grid), ``step``. Coordinates:
        values of the grid, every other field of the configs (along the grid where it varies),
        ``task_id``, ``run_id``, ``status``, ``code``. ``diverged`` says which seeds had a loss
        that was not finite, ``diverged_step`` since when; they are kept as they are. ``recorded``
        says where a run has a record at all. Attributes say which steps there are and what is
        missing.

    Raises
    ------
    StudyError
        There is no sweep or no finished run; steps differ with ``align="same"``, or none is
        common with ``align="common"``; or tasks leave no run, or several.
    """
    sweep = stored_sweep(folder, study)
    entries = list(_entries(sweep, folder))
    runs = [e.run for e in entries if e.run is not None]
    if not runs:
        msg = f"No task of the sweep in {folder} is finished; run it with: python -m studies sweep"
        raise StudyError(msg)
    dims, sizes, labels = _axes(sweep, entries)
    steps, note = _steps(runs, align)
    members = max(_members(run) for run in runs)
    shape = (*sizes, members, steps.size)
    fields = list(dict.fromkeys(str(name) for run in runs for name in run.data_vars))
    values = {name: np.full(shape, np.nan) for name in fields}
    recorded = np.zeros((*sizes, steps.size), dtype=bool)
    diverged = np.zeros((*sizes, members), dtype=bool)
    since = np.full((*sizes, members), np.nan)
    for entry in entries:
        if entry.run is None:
            continue
        at = np.flatnonzero(np.isin(steps, entry.run[STEP].values))
        chosen = entry.run.sel({STEP: steps[at]})
        recorded[entry.place][at] = True
        for name, variable in chosen.data_vars.items():
            numbers = _by_seed(variable)
            values[str(name)][entry.place][: numbers.shape[0], at] = numbers
        first = _divergence(entry.run)
        diverged[entry.place][: first.size] = np.isfinite(first)
        since[entry.place][: first.size] = first
    data: dict[str, Any] = {
        name: xr.Variable((*dims, SEED, STEP), array, _attrs(runs, name))
        for name, array in values.items()
    }
    data["recorded"] = ((*dims, STEP), recorded)
    data["diverged"] = ((*dims, SEED), diverged)
    data["diverged_step"] = ((*dims, SEED), since)
    coords = {
        **labels,
        STEP: steps,
        SEED: np.arange(members),
        **_config_coords(entries, dims, sizes),
    }
    coords = {name: value for name, value in coords.items() if name not in data}
    made = xr.Dataset(data, coords)
    return _merged_seeds(made).assign_attrs(_about(sweep, entries, note))


def plain_label(value: Any) -> Any:
    """A value of a config as a label: numbers and words as they are, all else as words."""
    return value if isinstance(value, (int, float, str)) else show(value)


def _entries(sweep: Sweep, folder: Path) -> Iterator[Entry]:
    names = [[name for name, _ in sweep.grid], [values for _, values in sweep.grid]]
    opened: dict[str, tuple[xr.Dataset, str]] = {}
    for point in sweep.points():
        place = tuple(values.index(point.values[name]) for name, values in zip(*names, strict=True))
        for i, task in enumerate(sweep.study.tasks(point.config)):
            name = digest(sweep.study, task)
            final = task_folder(sweep.study, folder, task)
            if name not in opened and final.exists():
                code = str(read_json(final / TASK).get("code", ""))
                opened[name] = (_only_run(final), code)
            failure = failure_in(folder, name) or {"state": "missing"}
            run, code = opened.get(name, (None, ""))
            status = "finished" if run is not None else str(failure["state"])
            yield Entry((*place, i), point.config, task, name, status, code, run)


def _only_run(folder: Path) -> xr.Dataset:
    """Numbers a step of the one run that a task left, all on one axis."""
    found = list_runs(folder)
    if len(found) != 1:
        msg = (
            f"{folder} holds {len(found)} recorded runs; a table takes tasks that leave exactly "
            "one each."
        )
        raise StudyError(msg)
    try:
        run = open_run(found[0].path)
    except NtkStatsError as error:
        msg = f"The run in {folder} cannot be read ({error}); delete the folder and sweep again."
        raise StudyError(msg) from error
    parts = []
    for axis in [str(dim) for dim in run.dims if str(dim).startswith(STEP)]:
        names = [
            name
            for name, v in run.data_vars.items()
            if axis in v.dims and set(v.dims) <= {axis, "member"} and v.dtype.kind in "biuf"
        ]
        one = run[names].reset_coords(drop=True)
        parts.append(one.rename({axis: STEP}) if axis != STEP else one)
    merged = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
    return merged.assign_attrs(run.attrs)


def _axes(
    sweep: Sweep, entries: Sequence[Entry]
) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """Dims of the grid and of the tasks, their sizes and labels."""
    names = [name if name != SEED else "seed_base" for name, _ in sweep.grid]
    sizes = [len(values) for _, values in sweep.grid]
    labels: dict[str, Any] = {
        name: np.array([plain_label(v) for v in values])
        for name, (_, values) in zip(names, sweep.grid, strict=True)
    }
    count = max(e.place[-1] for e in entries) + 1
    labels[TASK_DIM] = np.array(_task_names(entries, count))
    return (*names, TASK_DIM), (*sizes, count), labels


def _task_names(entries: Sequence[Entry], count: int) -> list[str]:
    """Names of the tasks of a point: labels, or what of them is the same at every point."""
    for shorten in (lambda label: label, lambda label: re.sub(r"\s*\([^)]*\)", "", label)):
        found = [{shorten(e.task.label) for e in entries if e.place[-1] == i} for i in range(count)]
        if all(len(names) == 1 for names in found) and len(set.union(*found)) == count:
            return [names.pop() for names in found]
    return [str(i) for i in range(count)]


def _steps(runs: Sequence[xr.Dataset], align: Align) -> tuple[np.ndarray, str]:
    schedules = {tuple(run[STEP].values.tolist()) for run in runs}
    if len(schedules) == 1:
        return np.array(next(iter(schedules))), "the same in all runs"
    if align == "same":
        shown = "; ".join(f"{len(s)} steps up to {s[-1]}" for s in sorted(schedules))
        msg = f"Runs were recorded at different steps ({shown}); pass align='union' or 'common'."
        raise StudyError(msg)
    if align == "union":
        steps = np.array(sorted(set().union(*schedules)))
        return steps, f"union of {len(schedules)} schedules; NaN where a run has no record"
    if align != "common":
        msg = f"align={align!r}; expected 'union', 'common' or 'same'."
        raise StudyError(msg)
    steps = np.array(sorted(set.intersection(*map(set, schedules))))
    if not steps.size:
        msg = "The runs have no step in common; pass align='union'."
        raise StudyError(msg)
    return steps, f"those that {len(schedules)} schedules share; the others are left out"


def _members(run: xr.Dataset) -> int:
    return int(run.sizes.get("member", 1))


def _by_seed(variable: xr.DataArray) -> np.ndarray:
    """``(members, steps)``."""
    if "member" not in variable.dims:
        return variable.values.astype(np.float64)[None]
    return variable.transpose("member", STEP).values.astype(np.float64)


def _divergence(run: xr.Dataset) -> np.ndarray:
    """First step at which a loss (or, without one, anything) is not finite, by seed; or NaN."""
    losses = [name for name in run.data_vars if str(name).split("_")[0] == "loss"]
    first = np.full(_members(run), np.inf)
    steps = run[STEP].values.astype(np.float64)
    for name in losses or list(run.data_vars):
        bad = ~np.isfinite(_by_seed(run[name]))
        if len({tuple(bad[:, t]) for t in range(bad.shape[1])}) == 1 and bad.all():
            continue  # never recorded here
        first = np.minimum(first, np.where(bad, steps, np.inf).min(axis=1))
    return np.where(np.isfinite(first), first, np.nan)


def _attrs(runs: Sequence[xr.Dataset], name: str) -> dict[str, Any]:
    """Attributes on which all runs agree; those that say what a number means have to."""
    each = [run[name].attrs for run in runs if name in run]
    for key in _MEANING:
        found = sorted({str(attrs.get(key)) for attrs in each})
        if len(found) > 1:
            msg = (
                f"{name!r} does not mean the same in all runs: {key} is {' and '.join(found)}. "
                "Sweep over one convention at a time."
            )
            raise StudyError(msg)
    return {
        key: value
        for key, value in each[0].items()
        if all(key in attrs and attrs[key] == value for attrs in each)
    }


def _config_coords(
    entries: Sequence[Entry], dims: tuple[str, ...], sizes: tuple[int, ...]
) -> dict[str, Any]:
    """Fields of the configs as coordinates, along the grid where they vary."""
    columns: dict[str, dict[tuple[int, ...], Any]] = {}
    for e in entries:
        facts = {
            f.name: plain_label(getattr(config, f.name))
            for config in (e.point, e.task)
            for f in dataclasses.fields(config)
        }
        facts |= {
            "task_id": e.id,
            "status": e.status,
            "code": e.code,
            "run_id": str(e.run.attrs.get("run_id", "")) if e.run is not None else "",
        }
        for name, value in facts.items():
            columns.setdefault(name, {})[e.place] = value
    found: dict[str, Any] = {}
    for name, by_place in columns.items():
        if name in dims or name in (SEED, STEP):
            continue
        each = list(by_place.values())
        always = name in ("task_id", "status", "code", "run_id")
        if not always and len(by_place) == len(entries) and all(v == each[0] for v in each):
            found[name] = each[0]
            continue
        filler = "" if any(isinstance(v, str) for v in each) else np.nan
        array = np.full(sizes, filler, dtype=object)
        for place, value in by_place.items():
            array[place] = value
        found[name] = (dims, np.array(array.tolist()))
    return found


def _merged_seeds(ds: xr.Dataset) -> xr.Dataset:
    """One task a point needs no dim; seeds of several tasks and of one ensemble are one dim."""
    if ds.sizes[TASK_DIM] == 1:
        ds = ds.squeeze(TASK_DIM)
    if "seed_base" not in ds.dims:
        return ds
    facts = [name for name in ds.coords if "seed_base" in ds[name].dims and name != "seed_base"]
    ids = {name: ds[name] for name in facts}
    flat = ds.drop_vars(facts).rename({SEED: "seed_member"})
    flat = flat.stack({SEED: ("seed_base", "seed_member")}, create_index=False)
    base, members = ds["seed_base"].values, ds.sizes[SEED]
    flat = flat.drop_vars(["seed_base", "seed_member"], errors="ignore")
    flat = flat.assign_coords({SEED: np.arange(base.size * members)})
    flat = flat.assign_coords(
        seed_base=(SEED, np.repeat(base, members)),
        seed_member=(SEED, np.tile(np.arange(members), base.size)),
    )
    for name, column in ids.items():
        spread = column.isel(seed_base=np.repeat(np.arange(base.size), members))
        flat = flat.assign_coords({name: spread.rename(seed_base=SEED).variable})
    last = [*(d for d in flat.dims if d not in (SEED, STEP)), SEED, STEP]
    return flat.transpose(*last)


def _about(sweep: Sweep, entries: Sequence[Entry], note: str) -> dict[str, Any]:
    by_status: dict[str, int] = {}
    for e in entries:
        by_status[e.status] = by_status.get(e.status, 0) + 1
    codes = sorted({e.code for e in entries if e.run is not None})
    return {
        "study": sweep.study.name,
        "version": sweep.study.version,
        "sweep": sweep.digest(),
        "grid": [name for name, _ in sweep.grid],
        "steps": note,
        "tasks": by_status,
        "codes": codes,
    }
