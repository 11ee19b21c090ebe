"""What a scan of checkpoints asks of a recorder, beyond what a training loop does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ntkstats.errors import RunNotFoundError
from ntkstats.recording._recorder import Recorder
from ntkstats.recording.live._continuation import NOTHING, Past, past_of
from ntkstats.recording.live._journal import Report
from ntkstats.recording.live._memory import remembering


class Visits(NamedTuple):
    """A recorder that is shown some states of a run, not all of them.

    Attributes
    ----------
    recorder
        Made with ``resume``.
    past
        What its file held when it was opened.
    """

    recorder: Recorder
    past: Past

    @classmethod
    def open(cls, path: str | os.PathLike[str], *args: object, **options: object) -> Visits:
        """A recorder on a new run or one that is continued; arguments as for `Recorder`."""
        recorder = Recorder(path, *args, resume=True, **options)  # type: ignore[arg-type]
        recorder._session.sporadic = True
        try:
            past = past_of(path)
        except RunNotFoundError:
            past = NOTHING
        return cls(recorder, past)

    def fail(self, step: int | None, stage: str, error: Exception) -> None:
        """Store that something about a step could not be done; warn once, raise if strict."""
        self.recorder._journal.fail(step, stage, error)

    @property
    def remembers(self) -> bool:
        """Whether the collectors, once bound, remember anything."""
        carry = self.recorder.carry
        return isinstance(carry, Mapping) and bool(remembering(carry))

    def finish(self) -> Report:
        """Mark the run finished, without another record."""
        return self.recorder._conductor.end("finished")
