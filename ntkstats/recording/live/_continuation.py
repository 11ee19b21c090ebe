"""What is missing when a run goes on: records that were lost, and what was not remembered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ntkstats.errors import RecordingError
from ntkstats.recording.live._memory import Memory
from ntkstats.recording.store._reader import history_in, opened, visible_in

_FAR_BACK = 10**6  # steps; looking further back would take seconds


class Past(NamedTuple):
    """The steps that a run holds, in order, and ``{step: what failed there}``."""

    steps: tuple[int, ...]
    failed: Mapping[int, str]

    def before(self, step: int) -> tuple[int, ...]:
        """The steps that come before ``step``."""
        return tuple(s for s in self.steps if s < step)


NOTHING = Past((), {})


def past_of(path: str | os.PathLike[str]) -> Past:
    """What a run holds that is not superseded."""
    with opened(path) as (file, db):
        records = visible_in(db, history_in(db), "latest", file)
        failed = db.execute("SELECT step, stage FROM failures WHERE step IS NOT NULL ORDER BY id")
        return Past(tuple(r.step for r in records), dict(failed.fetchall()))


def complaints(
    step: int,
    past: Past,
    due: Callable[[int], bool] | None,
    memory: Memory | None,
    forgetful: Sequence[str],
) -> Iterator[tuple[str, RecordingError]]:
    """What is wrong with going on at ``step``, as ``(what could not be done, why)``.

    Parameters
    ----------
    step
        First step of the new attempt.
    past
        What the run holds.
    due
        Whether something is recorded at a step, whatever a budget says; None if that is not known.
    memory
        The restored state, if one was restored.
    forgetful
        Collectors that remember, and were given nothing to remember.
    """
    missing = missing_steps(step, past, due, memory)
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        there = past.before(step)
        last = f"the last stored one is {there[-1]}" if there else "the file holds none before it"
        msg = (
            f"{len(missing)} records that were due before the run goes on are not stored (steps "
            f"{shown}; {last}). Resume from a checkpoint that is not newer than the last record, "
            f"or live with the gap"
        )
        yield "continue without a gap", RecordingError(msg)
    if memory is not None and any(memory.recorded < s for s in past.before(step)):
        msg = (
            f"the restored recorder state knows the records up to step {memory.recorded}, and the "
            f"run holds {past.before(step)[-1]} as well. Restore the state that was saved with the "
            f"checkpoint of step {step}"
        )
        yield "remember the last record", RecordingError(msg)
    if memory is None and forgetful and past.before(step):
        names = ", ".join(forgetful)
        msg = (
            f"{names} compare with earlier records, and start afresh here. Save recorder.state() "
            f"with every checkpoint and give it to recorder.restore() when resuming"
        )
        yield "remember earlier records", RecordingError(msg)


def missing_steps(
    step: int, past: Past, due: Callable[[int], bool] | None, memory: Memory | None
) -> list[int]:
    """The steps before ``step`` that should be stored and are not, after the last stored one."""
    known = {*past.steps, *past.failed}
    missing = set()
    if memory is not None and 0 <= memory.recorded <= step and memory.recorded not in known:
        missing.add(memory.recorded)
    there = past.before(step)
    last = there[-1] if there else -1
    if due is not None and (there or missing):
        start = max(0, step - _FAR_BACK)
        wanted = [s for s in range(start, step) if due(s)]
        # A loop that is not called at every due step says nothing about the later ones.
        if all(s in known for s in wanted if bool(there) and there[0] <= s <= last):
            missing |= {s for s in wanted if s > last and s not in known}
    return sorted(missing)
