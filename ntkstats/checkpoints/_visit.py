"""One checkpoint after the other: which ones, in which order, and what becomes of failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ntkstats.checkpoints._progress import Progress
from ntkstats.checkpoints._sidecar import Sidecar
from ntkstats.checkpoints._sources import Source, Sources
from ntkstats.errors import (
    CheckpointError,
    CheckpointMismatchError,
    DependencyError,
    ModelError,
    ParamsError,
    RecordingError,
    RunMismatchError,
    StoreError,
)
from ntkstats.recording.live._visits import Visits

LOAD = "load the checkpoint"
INSERT = "insert the checkpoint"
"""Stages of stored failures."""

_FAILED = object()


class Scan:
    """Shows checkpoints to a recorder.

    Parameters
    ----------
    visits
        The recorder.
    sidecar
        What collectors remember between two calls.
    bare
        Whether the checkpoints are trees of arrays as they were read.
    """

    def __init__(self, visits: Visits, sidecar: Sidecar, *, bare: bool) -> None:
        self._recorder = visits.recorder
        self._visits = visits
        self._sidecar = sidecar
        self._bare = bare
        self._done = frozenset(visits.past.steps)
        self._last = max(self._done, default=-1)
        # What was loaded and could not be measured is not tried again.
        failed = visits.past.failed
        self._hopeless = {s for s, stage in failed.items() if stage not in (LOAD, INSERT)}
        self._noted = set(failed)
        self._error: Exception | None = None
        self._bound = False

    def run(self, sources: Sources, show: Progress) -> None:
        """Measure what is not measured yet; a list may be gone back in, a stream may not.

        Raises
        ------
        CheckpointError
            There is nothing at all that could be loaded.
        """
        listed = sources if isinstance(sources, list) else None
        total = None if listed is None else len(listed)
        place = {} if listed is None else {s.step: i + 1 for i, s in enumerate(listed)}
        queue = iter(self._to_do(listed) if listed is not None else self._later(sources))
        seen = 0
        while (source := next(queue, None)) is not None:
            seen += 1
            obj = self._load(source)
            if obj is not _FAILED:
                again = None if self._bound else self._bind(obj, source.step, listed)
                if again is not None:
                    del obj  # one checkpoint in memory at a time
                    queue, seen = iter(again), 0
                    continue
                self._recorder(source.step, obj)
                del obj
                self._remember()
            show(place.get(source.step, seen), total)
        if self._error is not None and not self._bound and not self._done:
            msg = f"none of the checkpoints could be loaded; the first one: {self._error}"
            raise CheckpointError(msg) from self._error

    def _later(self, sources: Iterable[Source]) -> Iterable[Source]:
        return (s for s in sources if s.step > self._last and s.step not in self._hopeless)

    def _to_do(self, sources: Sequence[Source]) -> list[Source]:
        """The checkpoints after the last measured one, or from an earlier new one on."""
        early = [s for s in sources if s.step < self._last and s.step not in self._done]
        for source in early:
            if source.step in self._hopeless or self._is_barred(source, sources):
                continue
            if self._load(source) is not _FAILED:
                return [s for s in sources if s.step >= source.step]
        return list(self._later(sources))

    def _is_barred(self, source: Source, sources: Sequence[Source]) -> bool:
        """Whether later records could not be measured again after it."""
        gone = self._gone(sources, after=source.step)
        if gone and source.step not in self._noted:
            msg = (
                f"{source.name} lies before step {gone[0]}, which is measured already and whose "
                f"checkpoint is gone. Scan into another path to have it measured"
            )
            self._note(source.step, INSERT, CheckpointError(msg))
        return bool(gone)

    def _gone(self, sources: Sequence[Source], *, after: int = -1) -> list[int]:
        there = {source.step for source in sources}
        return sorted(step for step in self._done - there if step > after)

    def _load(self, source: Source) -> Any:
        try:
            return source.load()
        except DependencyError:
            raise
        except CheckpointMismatchError as error:
            if not self._bound and not self._done:
                raise  # what was given fits nothing, rather than one file being wrong
            self._note(source.step, LOAD, error)
        except Exception as error:  # whatever a loader or a damaged file brings
            self._note(source.step, LOAD, error)
        return _FAILED

    def _note(self, step: int, stage: str, error: Exception) -> None:
        self._error = self._error or error
        if step not in self._noted:
            self._noted.add(step)
            self._visits.fail(step, stage, error)

    def _bind(self, obj: Any, step: int, sources: Sequence[Source] | None) -> list[Source] | None:
        """Bind the collectors and give them their memory; where to start instead, if elsewhere."""
        try:
            self._recorder.bind(obj)
        except RunMismatchError:
            raise
        except (ModelError, ParamsError) as error:
            if not self._bare:
                raise
            msg = (
                f"{error} The checkpoints are bare arrays: give as like= what was saved, or "
                f"as_model(..., split=) for how the model finds its parameters in them"
            )
            raise type(error)(msg) from error
        self._bound = True
        before = max((s for s in self._done if s < step), default=None)
        if before is None or not self._visits.remembers:
            return None
        after = self._restore(step)
        if after == before or sources is None or self._gone(sources, after=after):
            return None  # what is not remembered, the recorder says
        # The sidecar is a record behind, or a checkpoint appeared before the last measured one.
        return [s for s in sources if s.step > after and s.step not in self._hopeless]

    def _restore(self, step: int) -> int:
        """Restore what was remembered before ``step``; the last record it knows, or -1."""
        state = self._sidecar.read()
        if state is None:
            return -1
        try:
            recorded = int(state["recorded"])
            if recorded not in self._done or recorded >= step:
                return -1
            self._recorder.restore(state)
        except (KeyError, TypeError, ValueError, RecordingError):
            return -1  # of other collectors, or not ours: measured again instead
        return recorded

    def _remember(self) -> None:
        if self._visits.remembers:
            try:
                self._sidecar.write(self._recorder.state())
            except StoreError as error:
                self._visits.fail(None, "remember the last record", error)
