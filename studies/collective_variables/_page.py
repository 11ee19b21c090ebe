"""The page of the documentation: answers and figures of a finished sweep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studies import _pages
from studies._errors import StudyError

FOLDER = _pages.DOCS / "collective_variables"
PAGE = _pages.DOCS / "collective-variables.md"
ANSWERS = "answers.json"

SHOWN = MappingProxyType(
    {
        "size": ("trajectories-entropy", "phase-map", "scaling-width", "scaling-depth"),
        "tanh": ("trajectories-entropy", "phase-map"),
        "regression": ("trajectories-entropy", "phase-map"),
        "data": ("trajectories-entropy", "scaling-samples"),
        "batch": ("amounts",),
        "redundancy": ("amounts",),
        "activation": ("amounts",),
        "corruption": ("damage",),
        "probe": ("trajectories-entropy", "scaling-probe"),
        "starts": ("starting-values",),
        "systems": ("systems-entropy", "amounts"),
    }
)
"""Figures of each question that the page shows; the report has all."""


def keep(report: Path, folder: Path = FOLDER) -> Path:
    """Copy the answers of a report, and the figures that the page shows, into the documentation.

    Raises
    ------
    StudyError
        The report lacks one.
    """
    answers = _read(report / ANSWERS)
    folder.mkdir(parents=True, exist_ok=True)
    for question, names in SHOWN.items():
        for name in names:
            figure = f"{question}-{name}.svg"
            if not (report / figure).exists():
                msg = f"{report} has no {figure}; finish the sweep over all questions first."
                raise StudyError(msg)
            shutil.copyfile(report / figure, folder / figure)
    kept = folder / ANSWERS
    kept.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
    return kept


def parts(folder: Path = FOLDER) -> dict[str, str]:
    """What belongs between the marks of the page, by question, from what `keep` has left."""
    answers = _read(folder / ANSWERS)
    return {"summary": _summary(answers)} | {
        question: "\n\n".join(_part(question, answers[question])) for question in SHOWN
    }


def _summary(answers: Mapping[str, Any]) -> str:
    rows = [
        f"| [{question}](#{question}) | {one['statement']} | {_verdict(one)} |"
        for question in SHOWN
        for one in answers[question]["claims"]
    ]
    return "\n".join(["| question | claim | verdict |", "| --- | --- | --- |", *rows])


def _part(question: str, answer: Mapping[str, Any]) -> Iterator[str]:
    claims = [f"- {one['statement']}: {_verdict(one)}." for one in answer["claims"]]
    if claims:
        yield "\n".join(claims)
    for name in SHOWN[question]:
        drawn = next(d for d in answer["figures"] if d["name"] == name)
        file = f"{FOLDER.name}/{question}-{name}.svg"
        yield _pages.picture(file, f"{drawn['title']}. {drawn['caption']}")
    numbers = [f"{one['statement']}: {one['evidence']}" for one in answer["claims"]]
    said = "\n\n".join(f"- {text}" for text in [*numbers, *answer["remarks"]])
    yield _pages.folded(f"Numbers ({answer['trainings']})", said)


def _verdict(claim: Mapping[str, Any]) -> str:
    return f"**{claim['verdict']}** ({claim['tally']})"


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        msg = f"There is no {path}; give the folder of the report of a finished sweep."
        raise StudyError(msg)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
