"""A recorder that is opened when training starts, and by one process only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ntkstats.collectors import Collector
from ntkstats.models import Model, Probe, as_model
from ntkstats.recording import Recorder


class Deferred:
    """Arguments of a `Recorder`, and the recorder while there is one.

    Callbacks are made in every process of a distributed run; the run's file belongs to the first.
    """

    def __init__(
        self,
        path: Any,
        model: Any,
        probes: Probe | Sequence[Probe],
        collectors: Collector | Sequence[Collector],
        options: dict[str, Any],
    ) -> None:
        self._model: Model = as_model(model)
        self._arguments = (path, self._model, probes, collectors)
        self._options = options
        self.recorder: Recorder | None = None

    def open(self) -> None:
        """Open the run unless that has been done."""
        if self.recorder is None:
            self.recorder = Recorder(*self._arguments, **self._options)

    def record(self, step: int, obj: Any) -> None:
        """Record, if this is the process that does."""
        if self.recorder is not None:
            self.recorder(step, obj)

    def finish(self, step: int, obj: Any) -> None:
        """Record the final state and close the run."""
        if self.recorder is not None:
            self.recorder.finish(obj, step)
            self.recorder = None

    def interrupt(self, error: BaseException) -> None:
        """Close the run as interrupted."""
        if self.recorder is not None:
            self.recorder.__exit__(type(error), error, None)
            self.recorder = None
