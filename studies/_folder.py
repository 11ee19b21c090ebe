"""The folder of a run: what is finished, what is not, and who is at work."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from studies._errors import StudyError
from studies._study import Study, TaskConfig

_CONFIG = "config.json"
_TASKS = "tasks"
_PARTIAL = ".partial"
_LOCK = ".lock"
_OWN = (
    _LOCK,
    _LOCK + "-journal",
    _CONFIG + _PARTIAL,
)  # what a process killed at its very start leaves


def facts(study: Study, config: Any) -> dict[str, Any]:
    """Everything that decides the numbers, as JSON values.

    Raises
    ------
    StudyError
        A field holds something that JSON cannot give back: its run would have no name.
    """
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        try:
            # NaN is refused because it differs from itself
            text = json.dumps(value)
            plain[field.name] = json.loads(text)
            kept = "NaN" not in text or plain[field.name] == json.loads(text)
        except (TypeError, ValueError):
            kept = False
        if not kept:
            msg = (
                f"{field.name}={value!r} of {type(config).__name__} cannot be stored; expected "
                "numbers, words, true, false, none, or tuples of them."
            )
            raise StudyError(msg)
    return {"study": study.name, "version": study.version, "config": plain}


def digest(study: Study, config: Any) -> str:
    """Hash of a config or task: equal exactly when the numbers are meant to be."""
    text = json.dumps(facts(study, config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def default_folder(study: Study, config: Any) -> Path:
    """``runs/STUDY/HASH`` in the current directory."""
    return Path("runs") / study.name / digest(study, config)


def task_folder(study: Study, folder: Path, task: TaskConfig) -> Path:
    """Where a finished task lies."""
    slug = re.sub(r"[^a-z0-9]+", "-", task.label.lower()).strip("-")
    return folder / _TASKS / f"{slug}-{digest(study, task)}"


def check_folder(study: Study, folder: Path, config: Any) -> None:
    """Refuse a folder that is not free for this config, nor its own.

    Raises
    ------
    StudyError
        The folder holds another configuration, or something else altogether.
    """
    path = folder / _CONFIG
    mine = facts(study, config)
    if path.exists():
        theirs = read_json(path)
        if theirs != mine:
            msg = (
                f"{folder} holds another configuration ({_difference(theirs, mine)}); "
                "choose another --out."
            )
            raise StudyError(msg)
        return
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file; choose another --out."
        raise StudyError(msg)
    if folder.exists() and any(p.name not in _OWN for p in folder.iterdir()):
        msg = f"{folder} holds files that are not of a study; choose an empty or new --out."
        raise StudyError(msg)


def claim(study: Study, folder: Path, config: Any) -> None:
    """Make a checked folder this config's own; it is locked."""
    check_folder(study, folder, config)
    if not (folder / _CONFIG).exists():
        write_whole(folder / _CONFIG, json.dumps(facts(study, config), indent=2) + "\n")


def stored_config(study: Study, folder: Path) -> Any:
    """Read back the config that a folder was made with.

    Raises
    ------
    StudyError
        There is none, or it belongs to another study or version.
    """
    path = folder / _CONFIG
    if not path.exists():
        msg = (
            f"No run of {study.name} at {folder}; "
            f"start one with: python -m studies run {study.name}"
        )
        raise StudyError(msg)
    stored = read_json(path)
    if (stored.get("study"), stored.get("version")) != (study.name, study.version):
        msg = (
            f"{folder} holds study {stored.get('study')!r} version {stored.get('version')!r}; "
            f"expected {study.name!r} version {study.version}."
        )
        raise StudyError(msg)
    return revived(study, stored["config"], path)


def revived(study: Study, stored: dict[str, Any], path: Path) -> Any:
    """Make a config again from its JSON values.

    Raises
    ------
    StudyError
        Its fields are not those of the study.
    """
    try:
        return study.config(**{key: tuples(value) for key, value in stored.items()})
    except TypeError as error:
        msg = f"{path} does not fit this version of {study.name} ({error}); run the study again."
        raise StudyError(msg) from None


def tuples(value: Any) -> Any:
    """Lists, which JSON makes of tuples, as tuples again."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


@contextmanager
def fresh(final: Path, attempt: str = "") -> Iterator[Path]:
    """Give an empty folder that becomes `final` when the block ends well, and vanishes otherwise.

    Renaming is atomic, so `final` exists exactly if the task finished. Several attempts at one
    task may run at once (a machine that was thought dead); the first to finish stays.
    """
    partial = final.with_name(f"{final.name}{'.' * bool(attempt)}{attempt}{_PARTIAL}")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        if not final.exists():
            try:
                partial.rename(final)
            except OSError:  # another attempt came first; anything else is an error
                if not final.exists():
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sweep_away(final: Path, lives: Callable[[str], bool] = lambda _: False) -> None:
    """Remove what attempts at a task left behind, but for those of which ``lives(attempt)``."""
    for partial in final.parent.glob(f"{final.name}*{_PARTIAL}"):
        if not lives(partial.name[len(final.name) : -len(_PARTIAL)].lstrip(".")):
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working in the folder; the lock dies with the process.

    Raises
    ------
    StudyError
        Another process works there, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder} cannot be made ({error.strerror}); choose another --out."
        raise StudyError(msg) from error
    # SQLite's file lock is in the standard library, on every system, and released by the kernel
    with closing(sqlite3.connect(folder / _LOCK, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            msg = (
                f"Another process works in {folder} ({error}); "
                "wait for it, or choose another --out."
            )
            raise StudyError(msg) from None
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a text file that exists wholly or not at all."""
    half = path.with_name(path.name + _PARTIAL)
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a study wrote.

    Raises
    ------
    StudyError
        It is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is not readable ({error}); choose another --out."
        raise StudyError(msg) from None
    if not isinstance(value, dict):
        msg = f"{path} is not of a study; choose another --out."
        raise StudyError(msg)
    return value


def _difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    for key in ("study", "version"):
        if theirs.get(key) != mine[key]:
            return f"{key} {theirs.get(key)!r}, not {mine[key]!r}"
    old, new = theirs.get("config", {}), mine["config"]
    return ", ".join(f"{k}: {old.get(k)!r}, not {v!r}" for k, v in new.items() if old.get(k) != v)
