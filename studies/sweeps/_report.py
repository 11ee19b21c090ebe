"""The report of a sweep: table, figures, words, and one page with all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ntkstats import plots
from ntkstats.analysis import Phases
from studies._claims import said
from studies._errors import StudyError
from studies._folder import read_json, write_whole
from studies._study import Report, Study
from studies._times import spent
from studies.sweeps import _figures
from studies.sweeps._html import Picture, Rows, page
from studies.sweeps._numbers import final_loss, grid_dims, phases_at, sizes, starting_values, trends
from studies.sweeps._parquet import to_parquet
from studies.sweeps._run import failures
from studies.sweeps._sweep import stored_sweep
from studies.sweeps._table import SEED, Align, table
from studies.sweeps._work import TASK

REPORT = "report"
_FIELDS = ("entropy", "trace")


class Drawn(NamedTuple):
    """A figure with its name, title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure


def compare(
    ds: xr.Dataset,
    *,
    venue: str = "neurips",
    found: Mapping[str, Phases] | None = None,
    skipped: list[str] | None = None,
) -> Iterator[Drawn]:
    """Draw every figure that the table has the numbers for, one after the other.

    Draw and save each inside `ntkstats.plots.style`; `report_sweep` does both.

    Parameters
    ----------
    ds
        From `table`.
    venue
        As in `ntkstats.plots.style`.
    found
        From `phases_at`, if they are known already.
    skipped
        Takes the reasons of figures that the table is too large for; without it they raise.

    Yields
    ------
    Drawn
        Close its figure when it is done with.
    """
    with plots.style(venue):
        for make in _makers(ds, found):
            try:
                drawn = make()
            except StudyError as error:
                if skipped is None:
                    raise
                skipped.append(f"Not drawn: {error}")
                continue
            yield drawn
            plt.close(drawn.figure)


def report_sweep(
    folder: Path, study: Study | None = None, *, venue: str = "neurips", align: Align = "union"
) -> Report:
    """Write table, figures and page of a sweep into ``FOLDER/report``.

    Figures are PDF and SVG, with a JSON beside each that names the runs and their configs.

    Raises
    ------
    StudyError
        There is no sweep or nothing is finished.
    """
    made = stored_sweep(folder, study)
    if made.study.report_sweep is not None:
        return made.study.report_sweep(folder, made)
    ds = table(folder, study, align=align)
    out = folder / REPORT
    out.mkdir(exist_ok=True)
    runs = _runs_in(folder, ds)
    found = phases_at(ds) if "entropy" in ds else {}
    pictures, files = [], []
    skipped: list[str] = []
    for drawn in compare(ds, venue=venue, found=found, skipped=skipped):
        pdf, svg, beside = plots.save(
            drawn.figure, out / drawn.name, runs=[r["run_id"] for r in runs], formats=("pdf", "svg")
        )
        about = {**json.loads(beside.read_text(encoding="utf-8")), "runs": runs}
        about |= {k: ds.attrs[k] for k in ("study", "version", "sweep")}
        write_whole(beside, json.dumps(about, indent=2) + "\n")
        pictures.append(Picture(drawn.title, drawn.caption, svg))
        files.append(pdf)
    time = spent(path.parent for path in folder.glob(f"tasks/*/{TASK}"))
    text = "\n\n".join([words(ds, found), *([f"{time}."] if time else [])])
    numbers = out / "numbers.json"
    write_whole(
        numbers,
        json.dumps(plain(_numbers(ds, found) | {"time": time and time._asdict()}), indent=2) + "\n",
    )
    parquet = to_parquet(ds, out / "table.parquet")
    index = out / "index.html"
    title = f"{ds.attrs['study']}: {' x '.join(ds.attrs['grid'])}"
    tables = [_phase_rows(found), _failure_rows(folder), _run_rows(runs)]
    write_whole(
        index,
        page(
            title, text, [*warnings(ds), *skipped], pictures, [rows for rows in tables if rows.rows]
        ),
    )
    return Report(text, (index, *files, numbers, parquet))


def _makers(ds: xr.Dataset, found: Mapping[str, Phases] | None) -> Iterator[Callable[[], Drawn]]:
    for field in ("entropy", "trace", "loss", "loss_test", "accuracy_test"):
        if field in ds:
            yield partial(_trajectories, ds, field)
    shown = [f for f in _FIELDS if f in ds]
    known = sizes(ds)
    if len(known) > 1 and "entropy" in ds:
        yield partial(_phase_map, ds, phases_at(ds) if found is None else found)
    for size in known:
        if shown:
            yield partial(_scaling, ds, size, shown)
    final = final_loss(ds)
    if final and shown and ds.sizes[SEED] > 3:
        yield partial(_starts, ds, shown, final)


def _trajectories(ds: xr.Dataset, field: str) -> Drawn:
    caption = (
        "Median over seeds; the band reaches from the 10 % to the 90 % quantile. Dotted where a "
        "seed is missing or not finite."
    )
    figure = _figures.trajectories(ds, field)
    return Drawn(f"trajectories-{field}", f"{field} over training", caption, figure)


def _phase_map(ds: xr.Dataset, found: Mapping[str, Phases]) -> Drawn:
    caption = (
        "How much the entropy falls in phases of compression and rises in phases of structure "
        "formation, mean over seeds: 0 where no such phase is found, in brackets where the 95 % "
        "interval holds 0. Arrows: the phases in order; a hyphen is a plateau."
    )
    figure = _figures.phase_map(ds, found)
    return Drawn("phase-map", "Compression against structure formation", caption, figure)


def _scaling(ds: xr.Dataset, size: str, shown: Sequence[str]) -> Drawn:
    caption = (
        "Mean over seeds with its 95 % interval, at the start and at the end; lines are power "
        "laws, with the 95 % interval of the exponent over sizes."
    )
    figure = _figures.scaling(ds, size, shown)
    return Drawn(f"scaling-{size}", f"Scaling with {size}", caption, figure)


def _starts(ds: xr.Dataset, shown: Sequence[str], final: str) -> Drawn:
    caption = (
        "Pearson correlation over seeds at fixed size, with its 95 % interval (Fisher); pooled "
        "over points by their numbers of seeds."
    )
    figure = _figures.starts(ds, shown, final)
    return Drawn("starting-values", f"Starting values and the final {final}", caption, figure)


def words(ds: xr.Dataset, found: Mapping[str, Phases]) -> str:
    """The findings in sentences."""
    parts = []
    for trend in trends(ds, found):
        parts.append(
            f"Over the points of the grid the rank correlation of {trend.size} with compression is "
            f"{said(trend.compression)}, with structure formation {said(trend.formation)}."
        )
    final = final_loss(ds)
    if final and ds.sizes[SEED] > 3:
        for field in (f for f in _FIELDS if f in ds):
            pooled = starting_values(ds, field, final)[1]
            parts.append(
                f"At fixed size, {field} at the start correlates with the final {final} by "
                f"{said(pooled)} over seeds."
            )
    counts = ", ".join(f"{n} {status}" for status, n in ds.attrs["tasks"].items())
    grid = " x ".join(f"{ds.sizes[d]} {d}" for d in grid_dims(ds))
    parts.append(
        f"Points: {grid}, {ds.sizes[SEED]} seeds. Tasks of the points: {counts}. "
        f"Steps: {ds.attrs['steps']}."
    )
    return "\n\n".join(parts)


def warnings(ds: xr.Dataset) -> list[str]:
    """What a reader has to know before believing anything."""
    found = []
    lacking = {s: n for s, n in ds.attrs["tasks"].items() if s != "finished"}
    if lacking:
        named = ", ".join(f"{n} {s}" for s, n in lacking.items())
        found.append(f"Not everything is here: {named}. Nothing stands in for these tasks.")
    if (diverged := int(ds["diverged"].sum())) > 0:
        found.append(
            f"{diverged} runs diverged: their loss was not finite. They are kept in the table and "
            "marked; phases leave them out, and say so."
        )
    if len(ds.attrs["codes"]) > 1:
        found.append(
            f"The runs were made by {len(ds.attrs['codes'])} versions of the code "
            f"({', '.join(ds.attrs['codes'])}); the column code says which."
        )
    if not ds.attrs["steps"].startswith("the same"):
        found.append(f"Runs were recorded at different steps: {ds.attrs['steps']}.")
    return found


def _runs_in(folder: Path, ds: xr.Dataset) -> list[dict[str, Any]]:
    """Run ids, task ids and configs of everything in the table."""
    by_task = dict(zip(ds["task_id"].values.ravel(), ds["run_id"].values.ravel(), strict=True))
    found = []
    for path in sorted(folder.glob(f"tasks/*/{TASK}")):
        about = read_json(path)
        if by_task.get(about["id"]):
            run = {"run_id": str(by_task[about["id"]]), "task_id": about["id"]}
            found.append({**run, "code": about.get("code"), "config": about["config"]})
    return found


def _numbers(ds: xr.Dataset, found: Mapping[str, Phases]) -> dict[str, Any]:
    final = final_loss(ds)
    starting = {}
    if final:
        for field in (f for f in _FIELDS if f in ds):
            each, pooled = starting_values(ds, field, final)
            starting[field] = {
                "points": {k: v._asdict() for k, v in each.items()},
                "pooled": pooled._asdict(),
            }
    return {
        "about": dict(ds.attrs),
        "phases": {label: _phases_json(p) for label, p in found.items()},
        "trends": [
            {
                "size": t.size,
                "compression": t.compression._asdict(),
                "formation": t.formation._asdict(),
            }
            for t in trends(ds, found)
        ],
        "starting_values": {"final": final, "fields": starting},
        "diverged": int(ds["diverged"].sum()),
    }


def _phases_json(found: Phases) -> dict[str, Any]:
    about = found._asdict()
    about["phases"] = [{**p._asdict(), "change": p.change._asdict()} for p in found.phases]
    for name in ("compression", "formation", "net"):
        about[name] = getattr(found, name)._asdict()
    return about


def _phase_rows(found: Mapping[str, Phases]) -> Rows:
    head = ("point", "phases", "compression", "structure formation", "net", "seeds", "support")
    rows = []
    for label, p in found.items():
        kinds = "; ".join(f"{k.kind} to step {k.end:g}" for k in p.phases) or "too few records"
        seeds = f"{p.seeds}" + (f" ({p.dropped} left out)" if p.dropped else "")
        support = "" if math.isnan(p.support) else f"{p.support:.0%}"
        row = (label, kinds, *map(said, (p.compression, p.formation, p.net)), seeds, support)
        rows.append(row)
    return Rows("Phases of the entropy", head, rows)


def _failure_rows(folder: Path) -> Rows:
    rows = [
        (str(f["label"]), str(f["id"]), str(f["state"]), str(f["attempts"]), str(f["why"])[:200])
        for f in failures(folder)
    ]
    return Rows("Tasks that failed", ("task", "id", "how", "attempts", "why"), rows)


def _run_rows(runs: list[dict[str, Any]]) -> Rows:
    rows = [
        (str(r["config"].get("label", "")), r["task_id"], r["run_id"], str(r["code"])) for r in runs
    ]
    return Rows("Runs", ("task", "task id", "run id", "code"), rows)


def plain(value: Any) -> Any:
    """JSON values; what is not finite becomes null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
