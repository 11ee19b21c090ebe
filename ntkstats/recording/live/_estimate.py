"""What recording will cost, measured before a long run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ntkstats.errors import RecordingError, ScheduleError
from ntkstats.recording._schedule import RecordAt
from ntkstats.recording.live._groups import Group
from ntkstats.recording.live._meter import Meter


class Overhead(NamedTuple):
    """Cost of recording a run.

    Attributes
    ----------
    records
        How many records the schedule gives, the first and the final state included.
    seconds_per_record, bytes_per_record
        Mean over the records; compilation and the write to disk are not counted.
    seconds, bytes
        The whole run.
    share
        ``seconds`` over the time of the training steps alone; None if that is not known.
    compile_seconds
        Compilation, once a run; what was compiled before is not counted.
    """

    records: int
    seconds_per_record: float
    bytes_per_record: float
    seconds: float
    bytes: float
    share: float | None
    compile_seconds: float

    def __str__(self) -> str:
        compiling = (
            f", and {_in_words(self.compile_seconds, _SECONDS)} of compilation"
            if self.compile_seconds > 0.0
            else ""
        )
        share = "" if self.share is None else f", {100 * self.share:.2g} % of the training time"
        return (
            f"{self.records} records of {_in_words(self.bytes_per_record, _BYTES)} and "
            f"{_in_words(self.seconds_per_record, _SECONDS)} each: "
            f"{_in_words(self.bytes, _BYTES)} and {_in_words(self.seconds, _SECONDS)} in all{share}"
            f"{compiling}"
        )


_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))
_SECONDS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def _in_words(value: float, scales: Sequence[tuple[float, str]]) -> str:
    scale, unit = next((s for s in scales if value >= s[0]), scales[-1])
    return f"{value / scale:.3g} {unit}"


def measure_overhead(
    meter: Meter,
    groups: Sequence[Group],
    obj: Any,
    total_steps: int,
    step_seconds: float | None,
    extras: Mapping[str, Any],
) -> Overhead:
    """Time one record of each kind that the schedules give, and add up.

    Raises
    ------
    RecordingError
        The number of steps is not positive.
    ScheduleError
        A budget is to be estimated without the time of a step.
    """
    if not isinstance(total_steps, int) or total_steps < 1:
        msg = f"total_steps must be a positive integer, got {total_steps!r}"
        raise RecordingError(msg)
    timed = _Timer(meter, obj, extras)
    ends = {0, total_steps}
    certain = [(group.names, group.at.certain) for group in groups]
    points = [at.points(total_steps).tolist() for _, at in certain if at is not None]
    steps = ends.union(*points)
    everything = frozenset().union(*(group.names for group in groups))
    kinds = Counter(
        everything
        if step in ends
        else frozenset().union(*(names for names, at in certain if at is not None and at.due(step)))
        for step in steps
    )
    n, seconds, size = len(steps), 0.0, 0
    for names, count in kinds.items():
        each, nbytes = timed(names)
        seconds, size = seconds + count * each, size + count * nbytes
    for group in groups:
        if group.at.share is not None and group.names:
            each, nbytes = timed(group.names)
            count = _affordable(group.at, total_steps, step_seconds, each)
            n, seconds, size = n + count, seconds + count * each, size + count * nbytes
    share = None if step_seconds is None else seconds / (step_seconds * total_steps)
    return Overhead(n, seconds / n, size / n, seconds, float(size), share, timed.compiling)


class _Timer:
    """Seconds and bytes of one record of a set of collectors, measured once a set."""

    def __init__(self, meter: Meter, obj: Any, extras: Mapping[str, Any]) -> None:
        self._args = (0, obj, extras)
        self._meter = meter
        self._known: dict[frozenset[str], tuple[float, int]] = {frozenset(): (0.0, 0)}
        self.compiling = 0.0

    def __call__(self, names: frozenset[str]) -> tuple[float, int]:
        if names not in self._known:
            is_new = names not in self._meter.measured
            first, _ = self._time(names)
            seconds, arrays = self._time(names)
            self.compiling += max(first - seconds, 0.0) if is_new else 0.0
            self._known[names] = seconds, sum(array.nbytes for array in arrays.values())
        return self._known[names]

    def _time(self, names: frozenset[str]) -> tuple[float, Mapping[str, np.ndarray]]:
        start = time.perf_counter()
        _, arrays = self._meter.measure(names, *self._args)
        return time.perf_counter() - start, arrays


def _affordable(at: RecordAt, total_steps: int, step_seconds: float | None, each: float) -> int:
    """How many records a budget will allow."""
    if step_seconds is None or at.share is None or at.wanted is None:
        msg = f"{at} follows the clock; give step_seconds, the time of one training step"
        raise ScheduleError(msg)
    spare = at.share / (1 - at.share) * step_seconds * total_steps
    return min(len(at.wanted.points(total_steps)), int(spare / max(each, 1e-9)))
