"""Run the tasks of a study once each, and report on what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from studies._errors import StudyError
from studies._folder import (
    check_folder,
    claim,
    facts,
    fresh,
    locked,
    sweep_away,
    task_folder,
    write_whole,
)
from studies._progress import Progress
from studies._study import Finished, Report, Study
from studies._times import timed


class Done(NamedTuple):
    """How many tasks ran just now, and how many had been finished before."""

    ran: int
    kept: int


def run_study(study: Study, config: Any, folder: Path, progress: Progress) -> Done:
    """Run every task that is not finished yet.

    A task is finished when its folder has its final name; the name holds the hash of the task's
    config. Tasks that were interrupted start again from an empty folder.

    Raises
    ------
    StudyError
        The folder belongs to another configuration, or another process works in it.
    """
    tasks = study.tasks(config)
    ran = 0
    check_folder(study, folder, config)
    with locked(folder):
        claim(study, folder, config)
        for task in tasks:
            final = task_folder(study, folder, task)
            if final.exists():
                progress.say(f"{task.label}: finished before")
                continue
            sweep_away(final)
            with fresh(final) as empty, timed(empty):
                write_whole(empty / "task.json", json.dumps(facts(study, task), indent=2) + "\n")
                study.run(task, empty, progress)
            ran += 1
    return Done(ran, len(tasks) - ran)


def report_study(study: Study, config: Any, folder: Path) -> Report:
    """Report on the finished tasks; the text says which ones are missing.

    Raises
    ------
    StudyError
        No task is finished.
    """
    tasks = study.tasks(config)
    finished = [Finished(t, f) for t in tasks if (f := task_folder(study, folder, t)).exists()]
    again = f"run `python -m studies run {study.name}` with the same settings to finish it"
    if not finished:
        msg = f"No task of {study.name} is finished in {folder}; {again}."
        raise StudyError(msg)
    report = study.report(config, finished, folder)
    done = {id(f.task) for f in finished}
    missing = [t.label for t in tasks if id(t) not in done]
    if missing:
        note = f"Not finished and not shown: {', '.join(missing)}; {again}."
        return report._replace(text=f"{report.text}\n\n{note}")
    return report
