"""What a worker does: one attempt at one task, wherever it runs."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any, Literal, NamedTuple

from studies._folder import digest, facts, fresh, sweep_away, task_folder, write_whole
from studies._study import Study
from studies._times import timed
from studies.sweeps._code import fingerprint
from studies.sweeps._signs import Signs, sign_file, wait_for_others

FAILED = "failed"
TASK = "task.json"

State = Literal["finished", "kept", "failed", "lost"]


class Order(NamedTuple):
    """All that a worker needs to know; it travels as a pickle.

    Attributes
    ----------
    study, task
        What to run.
    folder
        Of the sweep, absolute.
    attempt
        Name of this attempt, unlike that of any other.
    """

    study: Study
    task: Any
    folder: Path
    attempt: str

    @property
    def id(self) -> str:
        """Of the task."""
        return digest(self.study, self.task)


class Outcome(NamedTuple):
    """How an attempt ended.

    Attributes
    ----------
    id, label
        Of the task.
    state
        ``"finished"``, ``"kept"`` (another attempt had finished it), ``"failed"`` (it raised), or
        ``"lost"`` (its worker died).
    why
        Of a failure, in one line.
    """

    id: str
    label: str
    state: State
    why: str = ""


def attempt(order: Order) -> Outcome:
    """Run a task unless it is finished; never raises for what the task raises.

    A task at which somebody else is alive is waited for. A failure is written to
    ``failed/ID.json`` with its traceback.
    """
    study, task, folder = order.study, order.task, order.folder
    final = task_folder(study, folder, task)
    wait_for_others(folder, order.id, order.attempt, final.exists)
    if final.exists():
        return Outcome(order.id, task.label, "kept")
    # whoever has signs still came to life after the look, and may go on: the first to finish stays
    sweep_away(final, lambda other: sign_file(folder, order.id, other).exists())
    signs = Signs(sign_file(folder, order.id, order.attempt), task.label)
    try:
        with signs.beating(), fresh(final, order.attempt) as empty, timed(empty):
            about = {**facts(study, task), "id": order.id, "code": fingerprint(study)}
            write_whole(empty / TASK, json.dumps(about, indent=2) + "\n")
            study.run(task, empty, signs)
    except Exception as error:  # whatever a task raises is its own affair
        why = f"{type(error).__name__}: {error}"
        record_failure(order, "failed", why, traceback.format_exc())
        return Outcome(order.id, task.label, "failed", why)
    failure_file(folder, order.id).unlink(missing_ok=True)
    return Outcome(order.id, task.label, "finished")


def record_failure(order: Order, state: State, why: str, trace: str = "") -> None:
    """Write down how an attempt failed; earlier attempts are counted."""
    file = failure_file(order.folder, order.id)
    before = failure_in(order.folder, order.id) or {}
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "id": order.id,
        "label": order.task.label,
        "state": state,
        "why": why,
        "attempts": before.get("attempts", 0) + 1,
        "code": fingerprint(order.study),
        "config": facts(order.study, order.task)["config"],
        "traceback": trace,
    }
    write_whole(file, json.dumps(about, indent=2) + "\n")


def failure_file(folder: Path, task: str) -> Path:
    """Where the failure of a task is written down."""
    return folder / FAILED / f"{task}.json"


def failure_in(folder: Path, task: str) -> dict[str, Any] | None:
    """What was written down about it; None if it has not failed."""
    try:
        stored = json.loads(failure_file(folder, task).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) else None
