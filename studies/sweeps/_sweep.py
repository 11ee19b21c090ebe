"""A study at every point of a grid."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from studies._errors import StudyError
from studies._folder import digest, facts, read_json, revived, tuples
from studies._study import Study, study_named

SWEEP = "sweep.json"


class Point(NamedTuple):
    """One place of the grid.

    Attributes
    ----------
    values
        What the grid sets there.
    config
        The whole config.
    """

    values: dict[str, Any]
    config: Any


@dataclass(frozen=True)
class Sweep:
    """Everything that decides the numbers of a sweep; made with `sweep`.

    Attributes
    ----------
    study
        What is run.
    base
        The config of the study from which the grid departs.
    grid
        ``((field, (value, ...)), ...)``.
    """

    study: Study
    base: Any
    grid: tuple[tuple[str, tuple[Any, ...]], ...]

    def points(self) -> tuple[Point, ...]:
        """Every combination, the last field running fastest.

        Raises
        ------
        StudyError
            The study refuses the config of a point; the message names the point.
        """
        names = [name for name, _ in self.grid]
        found = []
        for values in itertools.product(*(values for _, values in self.grid)):
            chosen = dict(zip(names, values, strict=True))
            try:
                found.append(Point(chosen, dataclasses.replace(self.base, **chosen)))
            except (StudyError, TypeError, ValueError) as error:
                where = ", ".join(f"{k}={v!r}" for k, v in chosen.items())
                msg = f"{self.study.name} cannot be run at {where}: {error}"
                raise StudyError(msg) from error
        return tuple(found)

    def tasks(self) -> dict[str, Any]:
        """The tasks of all points by id; one that several points share is there once."""
        return {
            digest(self.study, task): task
            for point in self.points()
            for task in self.study.tasks(point.config)
        }

    def facts(self) -> dict[str, Any]:
        """The sweep as JSON values."""
        grid = json.loads(json.dumps({name: list(values) for name, values in self.grid}))
        return {**facts(self.study, self.base), "grid": grid}

    def digest(self) -> str:
        """Hash of study, config and grid."""
        text = json.dumps(self.facts(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def default_folder(self) -> Path:
        """``runs/STUDY/sweep-HASH`` in the current directory."""
        return Path("runs") / self.study.name / f"sweep-{self.digest()}"


def sweep(
    study: Study,
    grid: Mapping[str, Sequence[Any]],
    *,
    base: Any = None,
    seeds: int | None = None,
) -> Sweep:
    """Make a sweep, checked as far as it can be before anything runs.

    Parameters
    ----------
    study
        The study.
    grid
        Values of fields of its config; every combination is run.
    base
        The config from which the grid departs; the defaults of the study when omitted.
    seeds
        How many seeds each point has. A study whose config has a field ``seeds`` trains them
        together on the device; in others ``seed`` becomes part of the grid, one task each.

    Raises
    ------
    StudyError
        The grid is empty, names an unknown field, holds a value twice, or the study refuses a
        point or cannot store its config.
    """
    config = study.config() if base is None else base
    names = [field.name for field in dataclasses.fields(config)]
    chosen = {name: tuple(values) for name, values in grid.items()}
    if seeds is not None:
        config, chosen = _seeded(study, config, chosen, names, seeds)
    if not chosen:
        msg = (
            f"The grid is empty; give --grid FIELD=VALUE,VALUE with fields of {study.name} "
            f"({', '.join(names)}). One configuration alone is run by: "
            f"python -m studies run {study.name}"
        )
        raise StudyError(msg)
    for name, values in chosen.items():
        _check_field(name, names)
        if not values:
            msg = f"The grid has no value for {name!r}; give at least one."
            raise StudyError(msg)
        if len({json.dumps(v, default=repr) for v in values}) < len(values):
            msg = f"The grid holds a value of {name!r} twice: {values}; give each once."
            raise StudyError(msg)
    made = Sweep(study, config, tuple(chosen.items()))
    for point in made.points():
        facts(study, point.config)
        _check_tasks(study, point)
    return made


def stored_sweep(folder: Path, study: Study | None = None) -> Sweep:
    """Read back the sweep that lies in a folder.

    Raises
    ------
    StudyError
        There is none, or it was made by another version of the study.
    """
    path = folder / SWEEP
    if not path.exists():
        msg = f"No sweep at {folder}; start one with: python -m studies sweep NAME --grid ..."
        raise StudyError(msg)
    stored = read_json(path)
    known = study or study_named(str(stored.get("study")))
    if (stored.get("study"), stored.get("version")) != (known.name, known.version):
        msg = (
            f"{folder} holds study {stored.get('study')!r} version {stored.get('version')!r}; "
            f"expected {known.name!r} version {known.version}."
        )
        raise StudyError(msg)
    grid = {name: tuple(map(tuples, values)) for name, values in stored["grid"].items()}
    return Sweep(known, revived(known, stored["config"], path), tuple(grid.items()))


def _seeded(
    study: Study, config: Any, grid: dict[str, tuple[Any, ...]], names: Sequence[str], seeds: int
) -> tuple[Any, dict[str, tuple[Any, ...]]]:
    if seeds < 1:
        msg = f"seeds={seeds}; expected at least 1."
        raise StudyError(msg)
    field = next((name for name in ("seeds", "seed") if name in names), None)
    if field is None:
        msg = f"Study {study.name} has neither seeds nor seed; drop --seeds."
        raise StudyError(msg)
    if field in grid:
        msg = f"{field!r} is in the grid already; drop --seeds."
        raise StudyError(msg)
    if field == "seeds":
        return dataclasses.replace(config, seeds=seeds), grid
    return config, {**grid, "seed": tuple(range(config.seed, config.seed + seeds))}


def _check_field(name: str, names: Sequence[str]) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        msg = f"Unknown field {name!r} in the grid; expected one of {', '.join(names)}.{hint}"
        raise StudyError(msg)


def _check_tasks(study: Study, point: Point) -> None:
    tasks = study.tasks(point.config)
    ids = [digest(study, task) for task in tasks]
    if not ids or len(set(ids)) < len(ids):
        msg = (
            f"{study.name} gives {len(ids)} tasks at {point.values}, {len(set(ids))} of them "
            "different; expected at least one, and each once."
        )
        raise StudyError(msg)
