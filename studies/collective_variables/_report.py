"""The answers in words and figures, for one question or for all, on one page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import xarray as xr

from ntkstats import analysis, plots
from ntkstats.recording import open_run
from studies._folder import task_folder, write_whole
from studies._study import Finished, Report
from studies._times import Spent, spent
from studies.collective_variables._answers import ANSWERS, Answer, of_systems
from studies.collective_variables._config import Config, tasks
from studies.collective_variables._figures import figures, figures_of_systems
from studies.collective_variables._questions import Question, question
from studies.collective_variables._trial import RUN, Trial
from studies.sweeps import Sweep, tabulate
from studies.sweeps._html import Picture, Rows, page
from studies.sweeps._report import Drawn, plain
from studies.systems import SYSTEMS
from studies.systems._study import study_of

REPORT = "report"


class Found(NamedTuple):
    """One question with its answer and its figures, which are drawn when asked for."""

    question: Question
    answer: Answer
    draw: Sequence[Callable[[], Drawn]]
    runs: Sequence[dict[str, Any]]
    about: str
    time: Spent | None


def report(config: Config, finished: Sequence[Finished], folder: Path) -> Report:
    """Answer one question from its finished trainings."""
    there = {f.task: f.folder for f in finished}
    return _written([_found(config, there)], folder)


def report_all(folder: Path, sweep: Sweep) -> Report:
    """Answer every question of a sweep that has a finished training, on one page."""
    found = []
    for point in sweep.points():
        there = {
            trial: place
            for trial in tasks(point.config)
            if (place := task_folder(sweep.study, folder, trial)).exists()
        }
        if there:
            found.append(_found(point.config, there))
    return _written(found, folder / REPORT)


def _found(config: Config, there: Mapping[Trial, Path]) -> Found:
    asked = question(config.question, config.tier)
    missing = len(tasks(config)) - len(there)
    runs = [_described(trial, folder) for trial, folder in there.items()]
    time = spent(there.values())
    about = f"{len(there)} trainings" + (f", {missing} missing" if missing else "")
    if len(asked.systems) > 1:
        opened = dict(_heads(there))
        phases = {
            name: analysis.phases(*_curves(ds, f"entropy{head}"))
            for name, (ds, head) in opened.items()
        }
        draw = list(figures_of_systems(opened, phases))
        return Found(asked, of_systems(phases), draw, runs, about, time)
    table = table_of(config, asked, there)
    answer = ANSWERS[asked.name](table)
    return Found(asked, answer, list(figures(asked.name, table)), runs, about, time)


def table_of(config: Config, asked: Question, there: Mapping[Trial, Path]) -> xr.Dataset:
    """All trainings of a question about one system as a table."""
    (system,) = asked.systems
    study = study_of(system)
    base = study.config(**{"seed": config.seed, **asked.base})
    trials = {trial.config: trial for _, trial in asked.trials(config.seed)}
    nowhere = Path("missing")
    return tabulate(
        Sweep(study, base, tuple(asked.grid.items())),
        lambda task: (there.get(trials[task], nowhere), "missing"),
    )


def _heads(there: Mapping[Trial, Path]) -> Iterator[tuple[str, tuple[xr.Dataset, str]]]:
    """Every kernel of every system: its run, and how its fields end."""
    for trial, folder in there.items():
        ds = open_run(folder / RUN)
        for head in SYSTEMS[trial.system].heads:
            yield f"{trial.system}{head.replace('_', ', ', 1).replace('_', ' ')}", (ds, head)


def _curves(ds: xr.Dataset, field: str) -> tuple[Any, Any]:
    """Steps and values ``(T, seeds)``."""
    values = ds[field]
    axis = next(str(d) for d in values.dims if d != "member")
    return ds[axis].values, values.transpose(axis, ...).values


def _described(trial: Trial, folder: Path) -> dict[str, Any]:
    run = open_run(folder / RUN)
    return {"run_id": str(run.attrs.get("run_id", "")), **dataclasses.asdict(trial)}


def _written(found: Iterable[Found], out: Path) -> Report:
    out.mkdir(parents=True, exist_ok=True)
    texts, heads, pictures, files, numbers = [], [], [], [], {}
    rows: list[tuple[str, ...]] = []
    remarks: list[tuple[str, ...]] = []
    for one in found:
        texts.append(words(one))
        heads.append(words(one, numbers=False))
        remarks += [(one.question.name, remark) for remark in one.answer.remarks]
        shown = []
        for drawn in _drawn(one):
            pdf, svg, beside = plots.save(
                drawn.figure,
                out / f"{one.question.name}-{drawn.name}",
                runs=[run["run_id"] for run in one.runs],
                formats=("pdf", "svg"),
            )
            about = {**json.loads(beside.read_text(encoding="utf-8")), "runs": one.runs}
            write_whole(beside, json.dumps(about, indent=2) + "\n")
            pictures.append(Picture(f"{one.question.name}: {drawn.title}", drawn.caption, svg))
            files.append(pdf)
            shown.append({"name": drawn.name, "title": drawn.title, "caption": drawn.caption})
        for said in one.answer.claims:
            judged = f"{said.verdict} ({said.tally})"
            rows.append((one.question.name, said.statement, judged, said.evidence))
        numbers[one.question.name] = {
            "asks": one.question.asks,
            "trainings": one.about,
            "time": one.time and one.time._asdict(),
            "claims": [c._asdict() for c in one.answer.claims],
            "figures": shown,
            "remarks": list(one.answer.remarks),
        }
    tables = [
        Rows("Claims", ("question", "claim", "verdict", "evidence"), rows),
        Rows("Further numbers", ("question", "numbers"), remarks),
    ]
    text = "\n\n".join(texts)
    index, json_file = out / "index.html", out / "answers.json"
    write_whole(
        index,
        page("Collective variables of neural networks", "\n\n".join(heads), (), pictures, tables),
    )
    write_whole(json_file, json.dumps(plain(numbers), indent=2) + "\n")
    return Report(text, (index, *files, json_file))


def words(found: Found, *, numbers: bool = True) -> str:
    """Question and verdicts as a paragraph, with all numbers or without."""
    lines = [f"{found.question.asks} ({found.about})"]
    lines += [str(claim) if numbers else claim.headline for claim in found.answer.claims]
    lines += found.answer.remarks if numbers else ()
    return "\n".join([*lines, *([f"{found.time}."] if found.time else [])])


def _drawn(found: Found) -> Iterator[Drawn]:
    with plots.style("neurips"):
        for make in found.draw:
            drawn = make()
            yield drawn
            plt.close(drawn.figure)
