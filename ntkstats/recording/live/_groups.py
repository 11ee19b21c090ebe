"""Collectors sorted by schedule: each schedule has a step axis of its own."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ntkstats.collectors import Collector
from ntkstats.errors import CollectorError, DuplicateNameError, ScheduleError
from ntkstats.recording._schedule import RecordAt

STEP = "step"
"""Step axis of the recorder's own schedule."""

MEMBER = "member"
"""Axis of the members of an ensemble."""

DEFAULT_AT = RecordAt.log(100, until=10**6) | RecordAt.every(10**5, start=10**6)
"""Dense while much happens (about 17 records a decade), and open-ended."""


class Group(NamedTuple):
    """Collectors that follow one schedule."""

    axis: str
    at: RecordAt
    names: frozenset[str]


def check_collectors(collectors: Collector | Sequence[Collector]) -> tuple[Collector, ...]:
    """The collectors as a tuple, each with a name of its own.

    Raises
    ------
    CollectorError
        There are none, or one of them is not a collector.
    DuplicateNameError
        Two have the same name, so their numbers would be mixed up in one variable.
    ScheduleError
        A collector's own schedule is not a `RecordAt`.
    """
    given: Any = collectors
    listed = tuple(given) if isinstance(given, Iterable) else (given,)
    if not listed:
        msg = "collectors is empty; give at least one, such as collectors.ntk_spectrum()"
        raise CollectorError(msg)
    seen: set[str] = set()
    for collector in listed:
        if not isinstance(collector, Collector):
            hint = "call it, with parentheses" if callable(collector) else "make one with"
            msg = f"{collector!r} is not a Collector; {hint}: collectors.ntk_spectrum()"
            raise CollectorError(msg)
        if collector.name in seen:
            msg = (
                f"two collectors are named {collector.name!r}; their records would be mixed up. "
                f"Give one of them its own name=, for example name='{collector.name}_2'"
            )
            raise DuplicateNameError(msg)
        seen.add(collector.name)
        if collector.at is not None:
            check_schedule(collector.at, f"the schedule of collector {collector.name!r}")
    return listed


def check_schedule(at: Any, what: str) -> RecordAt:
    """``at`` if it is a `RecordAt`; otherwise a ScheduleError that says what to write."""
    if not isinstance(at, RecordAt):
        hint = f"RecordAt.every({at})" if isinstance(at, int) else "RecordAt.every(100)"
        msg = f"{what} must be a RecordAt, got {at!r}; write {hint}"
        raise ScheduleError(msg)
    return at


def group_collectors(collectors: Sequence[Collector], at: RecordAt | None) -> tuple[Group, ...]:
    """Groups of collectors by schedule; the first is the recorder's own, with axis ``step``.

    Without ``at``, a schedule that all collectors share is the recorder's own, otherwise
    `DEFAULT_AT` is. The first group may be without collectors; it then holds what the loop
    passes along.
    """
    own: dict[str, RecordAt | None] = {c.name: c.at for c in collectors}
    schedules = set(own.values())
    if at is None:
        shared = schedules.pop() if len(schedules) == 1 else None
        at = DEFAULT_AT if shared is None else shared
    names: dict[RecordAt, set[str]] = {at: set()}
    for name, schedule in own.items():
        names.setdefault(schedule or at, set()).add(name)
    groups: list[Group] = []
    for schedule, members in names.items():
        axis = f"{STEP}_{schedule.label}" if groups else STEP
        # Unions may have equal labels for different steps.
        while axis in {group.axis for group in groups}:
            axis += "_"
        groups.append(Group(axis, schedule, frozenset(members)))
    return tuple(groups)


def union(groups: Sequence[Group]) -> Callable[[int], bool]:
    """Whether some group is due at a step, whatever budgets say about it."""
    schedules = [group.at.certain for group in groups]
    certain = [at for at in schedules if at is not None]
    if not certain:
        return lambda _: False
    return functools.reduce(operator.or_, certain).due
