"""What a study is, and where to find one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from studies._errors import StudyError
from studies._progress import Progress

# Each is a package `studies.NAME` that holds `study`.
NAMES = ("quickstart", "collective_variables", "data_selection", "ml_landscapes")


class TaskConfig(Protocol):
    """A frozen dataclass that fixes one task wholly; equal configs are the same task."""

    @property
    def label(self) -> str:
        """Its name for people."""
        ...


class Finished(NamedTuple):
    """A task that ran to its end, and the folder with what it left there."""

    task: Any
    folder: Path


class Report(NamedTuple):
    """What a study found.

    Attributes
    ----------
    text
        The answer in words.
    files
        Figures and tables that were written, most telling first.
    """

    text: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Study:
    """A comparison that can be run, interrupted, continued and reported again.

    Attributes
    ----------
    name, summary
        What it is called, and its question in one line.
    config
        A frozen dataclass in which every field has a default and was made with `setting`.
    tasks
        ``tasks(config)``: the independent pieces of work, as `TaskConfig`.
    run
        ``run(task, folder, progress)``: does one task and leaves everything in the empty folder.
        It is a pure function of the task: whatever changes its numbers is in the task's config.
    report
        ``report(config, finished, folder)``: figures and words from finished tasks, written to
        the folder; called again it writes the same.
    report_sweep
        ``report_sweep(folder, sweep)``: what a sweep of this study found, in place of the report
        that every sweep has; None for that one.
    version
        Raised when `run` starts to give other numbers for the same config, so that old results
        are not taken for new ones.
    """

    name: str
    summary: str
    config: type
    tasks: Callable[[Any], Sequence[TaskConfig]]
    run: Callable[[Any, Path, Progress], None]
    report: Callable[[Any, Sequence[Finished], Path], Report]
    report_sweep: Callable[[Path, Any], Report] | None = None
    version: int = 1

    def __post_init__(self) -> None:
        parameters = getattr(self.config, "__dataclass_params__", None)
        if parameters is None or not parameters.frozen:
            msg = (
                f"The config of study {self.name} is {self.config!r}; expected a frozen "
                "dataclass, so that a run cannot change what it is named after."
            )
            raise StudyError(msg)


def known_studies() -> tuple[str, ...]:
    """Names of all studies; every system in training is one of its own."""
    return (*NAMES, *importlib.import_module("studies.systems").SYSTEMS)


def study_named(name: str) -> Study:
    """Import a study by name.

    Raises
    ------
    StudyError
        There is no study of that name.
    """
    systems = importlib.import_module("studies.systems._study")
    if name in systems.SYSTEMS:
        made = systems.study_of(name)
        assert isinstance(made, Study)
        return made
    if name not in NAMES:
        names = known_studies()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        msg = f"Unknown study {name!r}; expected one of {', '.join(names)}.{hint}"
        raise StudyError(msg)
    study = importlib.import_module(f"studies.{name}").study
    assert isinstance(study, Study)
    return study
