"""What recording will cost, measured before a long run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ntkstats.recording._groups import Group, union
from ntkstats.recording._meter import Meter


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
    """

    records: int
    seconds_per_record: float
    bytes_per_record: float
    seconds: float
    bytes: float
    share: float | None

    def __str__(self) -> str:
        share = "" if self.share is None else f", {100 * self.share:.2g} % of the training time"
        return (
            f"{self.records} records of {_in_words(self.bytes_per_record, _BYTES)} and "
            f"{_in_words(self.seconds_per_record, _SECONDS)} each: "
            f"{_in_words(self.bytes, _BYTES)} and {_in_words(self.seconds, _SECONDS)} in all{share}"
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
    """Time one record of each kind that the schedules give, and add up."""
    steps = {0, total_steps, *union(groups).points(total_steps).tolist()}
    everything = frozenset().union(*(group.names for group in groups))
    kinds = Counter(
        everything
        if step in (0, total_steps)
        else frozenset().union(*(group.names for group in groups if group.at.due(step)))
        for step in steps
    )
    seconds, size = 0.0, 0
    for names, count in kinds.items():
        if names:
            meter.measure(names, 0, obj, extras)  # compiles
            start = time.perf_counter()
            _, arrays = meter.measure(names, 0, obj, extras)
            seconds += count * (time.perf_counter() - start)
            size += count * sum(array.nbytes for array in arrays.values())
    share = None if step_seconds is None else seconds / (step_seconds * total_steps)
    n = len(steps)
    return Overhead(n, seconds / n, size / n, seconds, float(size), share)
