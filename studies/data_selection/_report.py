"""The answers of finished trials in numbers, words and figures, on one page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import ntkstats
from ntkstats import plots
from studies._folder import digest, task_folder, write_whole
from studies._study import Finished, Report, study_named
from studies.data_selection import _answers as answers
from studies.data_selection._answers import Numbers, Place
from studies.data_selection._atoms import METHODS
from studies.data_selection._config import Config, Trial, tasks
from studies.data_selection._figures import figures
from studies.data_selection._measure import kept
from studies.data_selection._tiers import TIERS, case_named
from studies.data_selection._verdicts import claims
from studies.sweeps import Sweep
from studies.sweeps._html import Picture, Rows, page
from studies.sweeps._report import plain

ANSWERS = "answers.json"
REPORT = "report"


def report(config: Config, finished: Sequence[Finished], folder: Path) -> Report:
    """Answer the questions of one run."""
    return written(answered(config.tier, finished), folder / REPORT)


def report_all(folder: Path, sweep: Sweep) -> Report:
    """Answer all questions of a sweep; several seeds are more splits of the data.

    Tiers are not mixed: the largest of those in the sweep is reported.
    """
    by_tier: dict[str, list[Finished]] = {}
    for point in sweep.points():
        for trial in tasks(point.config):
            place = task_folder(sweep.study, folder, trial)
            if place.exists():
                by_tier.setdefault(trial.tier, []).append(Finished(trial, place))
    tier = max(by_tier, key=list(TIERS).index)
    return written(answered(tier, by_tier[tier]), folder / REPORT)


def answered(tier: str, finished: Iterable[Finished]) -> dict[str, Any]:
    """Everything that the report and the page in the docs say, as JSON values."""
    groups: dict[Place, list[tuple[Trial, Numbers]]] = {}
    for trial, folder in dict.fromkeys((f.task, f.folder) for f in finished):
        place = Place(trial.question, trial.dataset, trial.network)
        groups.setdefault(place, []).append((trial, kept(folder)))
    found: dict[str, Any] = {
        "study": "data_selection",
        "tier": tier,
        "confidence": answers.CONFIDENCE,
        "ntkstats": ntkstats.__version__,
        "trials": [
            {
                "id": digest(study_named("data_selection"), trial),
                "label": trial.label,
                "seed": trial.seed,
            }
            for listed in groups.values()
            for trial, _ in listed
        ],
        "sizes": _sizes(tier, groups),
    }
    for place, listed in groups.items():
        numbers = joined([numbers for _, numbers in listed])
        if place.question == "league":
            found.setdefault("league", {})[place.case] = answers.league(numbers)
        elif place.question == "starts":
            found.setdefault("starts", {})[place.case] = answers.starts(numbers)
        elif place.question == "ablations":
            found.setdefault("ablations", {})[place.dataset] = answers.ablations(numbers)
            found.setdefault("contrasts", {})[place.dataset] = answers.contrasts(numbers)
        else:
            found["atoms"] = answers.atoms(numbers, METHODS, TIERS[tier].atoms.tolerance)
    if "league" in found:
        found["overview"] = answers.overview(found["league"])
    found["claims"] = claims(found)
    made: dict[str, Any] = plain(_rounded(found))
    return made


def _rounded(value: Any) -> Any:
    """Six digits of every number: more would only be noise of the machine."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def joined(listed: Sequence[Mapping[str, np.ndarray]]) -> Numbers:
    """Repeats of several seeds of the study one after the other."""
    names = ("names", "groups", "values")
    return {
        name: value
        if name in names or len(listed) == 1
        else np.concatenate([one[name] for one in listed])
        for name, value in listed[0].items()
    }


def _sizes(tier: str, groups: Iterable[Place]) -> dict[str, Any]:
    sizes = TIERS[tier]
    cases = {
        place.case: dataclasses.asdict(case_named(sizes, place.dataset, place.network))
        for place in groups
        if place.question in ("league", "starts")
    }
    return {
        "cases": cases,
        "picking": dataclasses.asdict(sizes.picking),
        "ablations": dataclasses.asdict(sizes.ablations),
        "atoms": dataclasses.asdict(sizes.atoms),
    }


def written(found: Mapping[str, Any], out: Path) -> Report:
    """Figures as PDF and SVG, `ANSWERS`, and a page that holds them all."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / ANSWERS, json.dumps(found, indent=1) + "\n")
    runs = [trial["id"] for trial in found["trials"]]
    pictures, files = [], []
    for picture, pdf in drawn(found, out, runs, ("pdf", "svg")):
        pictures.append(picture)
        files.append(pdf)
    rows = [(c["statement"], c["verdict"], _count(c), c["evidence"]) for c in found["claims"]]
    table = Rows("Claims", ("claim", "verdict", "for, against, of", "evidence"), rows)
    text = words(found)
    index = out / "index.html"
    write_whole(index, page("Data selection", text, (), pictures, [table]))
    return Report(text, (index, *files, out / ANSWERS))


def drawn(
    found: Mapping[str, Any], out: Path, runs: Sequence[str], formats: Sequence[str]
) -> list[tuple[Picture, Path]]:
    """Draw and save every figure; its SVG with words, and the first file."""
    made = []
    with plots.style("neurips"):
        for make in figures(found):
            one = make()
            files = plots.save(one.figure, out / one.name, runs=runs, formats=formats)
            plt.close(one.figure)
            svg = next(f for f in files if f.suffix == ".svg")
            made.append((Picture(one.title, one.caption, svg), files[0]))
    return made


def words(found: Mapping[str, Any]) -> str:
    """Every claim in a line."""
    lines = [
        f"{c['statement']}: {c['verdict'].upper()} ({_count(c)} intervals)."
        for c in found["claims"]
    ]
    return "\n".join(lines)


def _count(claim: Mapping[str, Any]) -> str:
    return f"{claim['for']} for, {claim['against']} against, of {claim['places']}"
