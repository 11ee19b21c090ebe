"""How many records a schedule asks for, from the label that a run stores."""

from __future__ import annotations

import re

import numpy as np

from ntkstats.errors import ScheduleError
from ntkstats.recording import RecordAt

_MOST = 10**6  # a label is data: it must not make this program count for ever
_PART = re.compile(
    r"every_(?P<k>\d+)(_from_(?P<start>\d+))?_until_(?P<end>\d+)"
    r"|log_(?P<n>\d+)_until_(?P<top>\d+)"
    r"|steps_(?P<list>\d+(_\d+)*)"
)


def planned_steps(label: str) -> np.ndarray | None:
    """The steps of a schedule, ``(k,)``; None if it has no end or does not say them."""
    found: set[int] = set()
    for part in label.split("_and_"):
        match = _PART.fullmatch(part)
        steps = None if match is None else _steps(match)
        if steps is None or len(found) > _MOST:
            return None
        found.update(steps)
    return np.array(sorted(found), np.int64)


def _steps(match: re.Match[str]) -> list[int] | None:
    if match["list"]:
        return [int(text) for text in match["list"].split("_")]
    if match["n"]:
        n, top = int(match["n"]), int(match["top"])
        if n > _MOST or top >= 2**63:
            return None
        try:
            at = RecordAt.log(n, until=top)
        except ScheduleError:
            return None
        return at.points(top).tolist()
    k, start, end = int(match["k"]), int(match["start"] or 0), int(match["end"])
    if k < 1 or end < start or (end - start) // k > _MOST:
        return None
    return list(range(start, end + 1, k))
