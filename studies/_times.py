"""Where the time of a task goes: into compilation, into records, and into everything else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import jax

from ntkstats.recording import list_runs, open_run
from studies._folder import read_json, write_whole
from studies._progress import duration

TIMES = "times.json"

Stretch = tuple[float, float]


class Spent(NamedTuple):
    """Time of tasks [s].

    Attributes
    ----------
    tasks
        How many tasks.
    seconds
        From their start to their end, added up.
    compiling
        Of that: tracing, lowering and compiling programs, wherever they belong.
    recording
        Of that: records, without the compilation in them.
    """

    tasks: int
    seconds: float
    compiling: float
    recording: float

    def __str__(self) -> str:
        shares = (self.compiling / self.seconds, self.recording / self.seconds)
        return (
            f"{self.tasks} tasks took {duration(self.seconds)}: {shares[0]:.0%} compiling, "
            f"{shares[1]:.0%} recording, {1 - sum(shares):.0%} training and all else"
        )


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Leave ``times.json`` in a folder: how long the block took, and when it compiled."""
    began, clock = time.time(), time.perf_counter()
    compiling: list[Stretch] = []

    def listen(event: str, duration_secs: float, **_: object) -> None:
        if event.startswith("/jax/core/compile/"):
            end = time.perf_counter() - clock
            compiling.append((end - duration_secs, end))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    facts = {
        "began": began,
        "seconds": time.perf_counter() - clock,
        "compiling": [(round(a, 4), round(b, 4)) for a, b in merged(compiling)],
    }
    write_whole(folder / TIMES, json.dumps(facts) + "\n")


def spent(folders: Iterable[Path]) -> Spent | None:
    """Add up the time of finished tasks; None if none of them was timed."""
    parts = [_of_task(folder) for folder in folders if (folder / TIMES).exists()]
    if not parts:
        return None
    return Spent(len(parts), *(sum(column) for column in zip(*parts, strict=True)))


def _of_task(folder: Path) -> tuple[float, float, float]:
    facts = read_json(folder / TIMES)
    compiling: list[Stretch] = [(a, b) for a, b in facts["compiling"]]
    records = merged(s for info in list_runs(folder) for s in _records(info.path, facts["began"]))
    recording = length(records) - shared(records, compiling)
    return float(facts["seconds"]), length(compiling), recording


def _records(path: Path, began: float) -> Iterator[Stretch]:
    """Start and end of every record, since ``began``."""
    run = open_run(path)
    created = datetime.fromisoformat(str(run.attrs["created"])).timestamp()
    for name in run.coords:
        if str(name).startswith("wall_time"):
            lasted = run[str(name).replace("wall_time", "record_seconds")].values
            starts = run[name].values + created - began
            yield from zip(starts.tolist(), (starts + lasted).tolist(), strict=True)


def merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same time, in order and without overlaps; compilations are nested in others."""
    found: list[Stretch] = []
    for start, end in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def length(stretches: Sequence[Stretch]) -> float:
    """How long merged stretches are together."""
    return sum(end - start for start, end in stretches)


def shared(one: Sequence[Stretch], other: Sequence[Stretch]) -> float:
    """How long both kinds of merged stretches are at once."""
    return length(one) + length(other) - length(merged([*one, *other]))
