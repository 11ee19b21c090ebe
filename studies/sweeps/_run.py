"""Run a sweep: what is finished stays, what failed is noted, the rest is handed to an engine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import ntkstats
from studies._errors import StudyError
from studies._folder import locked, read_json, task_folder, write_whole
from studies.sweeps._board import Board, LineScreen, Screen
from studies.sweeps._choose import engine_named
from studies.sweeps._code import fingerprint
from studies.sweeps._engines import Engine, on_executor
from studies.sweeps._sweep import SWEEP, Sweep
from studies.sweeps._work import FAILED, TASK, Order, Outcome, failure_file

SESSIONS = "sessions.jsonl"


class Tally(NamedTuple):
    """What became of the tasks of a sweep.

    Attributes
    ----------
    ran, kept
        Finished just now, and finished before.
    failed
        Those that raised or lost their worker.
    skipped
        Those that had failed before and were not tried again.
    """

    ran: int
    kept: int
    failed: tuple[Outcome, ...]
    skipped: int


def run_sweep(
    sweep: Sweep,
    folder: Path,
    screen: Screen | None = None,
    *,
    executor: str | Executor = "serial",
    workers: int | None = None,
    options: Mapping[str, str] | None = None,
    skip_failed: bool = False,
    extend: bool = False,
) -> Tally:
    """Run every task that is not finished yet.

    A task is finished when its folder has its final name, which holds the hash of its config.
    One that fails does not stop the others; it is tried again by the next call.

    Parameters
    ----------
    sweep
        What to run, from `sweep`.
    folder
        Where; it may hold this sweep already.
    screen
        Where progress is shown; lines on standard error by default.
    executor
        ``"serial"``, ``"process"``, ``"slurm"``, ``"dask"``, or any executor of
        `concurrent.futures` whose workers see the folder and do not fork.
    workers
        How many tasks run at once; each engine has its own default.
    options
        Of the engine.
    skip_failed
        Leave tasks alone that failed before.
    extend
        Let this sweep take over a folder of a smaller one, all of whose tasks it holds.

    Raises
    ------
    StudyError
        The folder belongs to another sweep, another process works in it, or the engine cannot
        be had.
    """
    import sys

    shown = screen or LineScreen(sys.stderr)
    folder = folder.absolute()
    tasks = sweep.tasks()
    check_sweep_folder(sweep, folder, extend=extend)
    with locked(folder):
        check_sweep_folder(sweep, folder, extend=extend)
        write_whole(folder / SWEEP, json.dumps(sweep.facts(), indent=2) + "\n")
        todo = _todo(sweep, folder, tasks, skip_failed)
        kept = sum(task_folder(sweep.study, folder, t).exists() for t in tasks.values())
        # chosen before anything is written down: an engine that is missing is no session
        engine = _engine(executor, folder, workers, options or {}) if todo else None
        session = _begin(sweep, folder, str(executor), kept, shown)
        orders = [Order(sweep.study, t, folder, f"{session}-{i}") for i, t in enumerate(todo)]
        failed: list[Outcome] = []
        ran = 0
        with Board(shown, folder, len(tasks), kept) as board:
            for outcome in engine(orders) if engine else ():
                board.count(outcome)
                if outcome.state in ("failed", "lost"):
                    failed.append(outcome)
                else:
                    ran += 1
        _note(folder, session, "ended", ran=ran, failed=[o.id for o in failed])
        return Tally(ran, kept, tuple(failed), len(tasks) - kept - len(orders))


def check_sweep_folder(sweep: Sweep, folder: Path, *, extend: bool = False) -> None:
    """Refuse a folder that is neither free nor this sweep's own.

    Raises
    ------
    StudyError
        It holds another sweep, or something else altogether.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file; choose another --out."
        raise StudyError(msg)
    path = folder / SWEEP
    if not path.exists():
        theirs = [p.name for p in folder.iterdir()] if folder.exists() else []
        if any(not name.startswith((".lock", SWEEP)) for name in theirs):
            msg = f"{folder} holds files that are not of a sweep; choose an empty or new --out."
            raise StudyError(msg)
        return
    stored, mine = read_json(path), sweep.facts()
    if stored == mine:
        return
    if extend and _holds(mine, stored):
        return
    names = sorted(k for k in {*stored, *mine} if stored.get(k) != mine.get(k))
    shown = "; ".join(f"{k}: {_short(stored.get(k), mine.get(k))}" for k in names)
    hint = "" if extend else ", or --extend if this one holds all its points"
    msg = f"{folder} holds another sweep ({shown}); choose another --out{hint}."
    raise StudyError(msg)


def _holds(mine: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether every point of the stored sweep is one of mine."""
    if any(mine[k] != stored.get(k) for k in ("study", "version")):
        return False
    fields = {**mine["config"], **stored.get("config", {})}
    for name in fields:
        before = stored["grid"].get(name, [stored["config"].get(name)])
        now = mine["grid"].get(name, [mine["config"].get(name)])
        if any(value not in now for value in before):
            return False
    return True


def _short(theirs: Any, mine: Any) -> str:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        names = [k for k in {**theirs, **mine} if theirs.get(k) != mine.get(k)]
        return ", ".join(f"{k} {theirs.get(k)!r}, not {mine.get(k)!r}" for k in names)
    return f"{theirs!r}, not {mine!r}"


def _todo(sweep: Sweep, folder: Path, tasks: Mapping[str, Any], skip_failed: bool) -> list[Any]:
    return [
        task
        for name, task in tasks.items()
        if not task_folder(sweep.study, folder, task).exists()
        and not (skip_failed and failure_file(folder, name).exists())
    ]


def _engine(
    executor: str | Executor, folder: Path, workers: int | None, options: Mapping[str, str]
) -> Engine:
    if isinstance(executor, Executor):
        return on_executor(executor)
    return engine_named(executor, folder, workers, options)


def _begin(sweep: Sweep, folder: Path, executor: str, kept: int, screen: Screen) -> str:
    """Note the session; warn if finished tasks were made by other code."""
    session = uuid.uuid4().hex[:8]
    code = fingerprint(sweep.study)
    before = codes_in(folder)
    others = {name: ids for name, ids in before.items() if name != code}
    _note(
        folder,
        session,
        "began",
        executor=executor,
        kept=kept,
        code=code,
        other_code=others,
        ntkstats=ntkstats.__version__,
    )
    if others:
        count = sum(map(len, others.values()))
        screen.say(
            f"warning: the code changed since {count} of the finished tasks were made "
            f"({', '.join(others)}, now {code}). They are kept, and the table says which is "
            f"which; if the change matters, raise the study's version or use another --out."
        )
    return session


def codes_in(folder: Path) -> dict[str, list[str]]:
    """Ids of the finished tasks by the fingerprint of the code that made them."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob(f"tasks/*/{TASK}")):
        if not path.parent.name.endswith(".partial"):
            about = read_json(path)
            found.setdefault(str(about.get("code")), []).append(str(about.get("id")))
    return found


def _note(folder: Path, session: str, event: str, **facts: Any) -> None:
    """Add a line to the history of the folder; its times are for people and never compared."""
    line = {"session": session, "event": event, "utc": datetime.now(UTC).isoformat(), **facts}
    with (folder / SESSIONS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def failures(folder: Path) -> Sequence[dict[str, Any]]:
    """What was written down about tasks that failed, by label."""
    found = [read_json(path) for path in folder.glob(f"{FAILED}/*.json")]
    return sorted(found, key=lambda f: str(f.get("label")))
