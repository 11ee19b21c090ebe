"""Step numbers that the loop passes, checked."""

from __future__ import annotations

import operator
from typing import Any

from ntkstats.errors import RecordingError


def as_step(step: Any) -> int:
    """``step`` as a Python integer.

    Raises
    ------
    RecordingError
        It is none, or negative.
    """
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        msg = f"step must be a non-negative integer, the number of updates so far; got {step!r}"
        raise RecordingError(msg)
    return number


def check_order(step: int, recorded: int, *, first: bool) -> None:
    """Refuse a step before the last recorded one.

    Raises
    ------
    RecordingError
        It lies before; at the first call the restored state is what does not fit.
    """
    if step >= recorded:
        return
    if first:
        msg = (
            f"training goes on at step {step}, and the restored recorder state knows the record of "
            f"step {recorded}; restore the state that was saved with the checkpoint of step {step}"
        )
    else:
        msg = (
            f"step {step} comes after step {recorded} was recorded; steps must not decrease. "
            f"Count updates over the whole run, or resume it in a new Recorder"
        )
    raise RecordingError(msg)
