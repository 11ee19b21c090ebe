"""What the callbacks of trainers share: a recorder that one process opens when training starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ntkstats.collectors import Collector
from ntkstats.models import Model, Probe, as_model
from ntkstats.recording import Recorder
from ntkstats.torch._scope import Scope


class RecordingCallback(Scope):
    """Arguments of a `Recorder`, and the recorder while there is one.

    Callbacks are made in every process of a distributed run; the run's file belongs to the first.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Any,
        probes: Probe | Sequence[Probe],
        collectors: Collector | Sequence[Collector],
        **options: Any,
    ) -> None:
        self._model: Model = as_model(model)
        self._arguments = (path, self._model, probes, collectors)
        self._options = options
        self._recorder: Recorder | None = None

    def _open(self) -> None:
        """Open the run unless that has been done."""
        if self._recorder is None:
            self._recorder = Recorder(*self._arguments, **self._options)

    def _record(self, step: int, obj: Any) -> None:
        """Record, if this is the process that does."""
        if self._recorder is not None:
            self._recorder(step, obj)

    def _finish(self, step: int, obj: Any) -> None:
        """Record the final state and close the run."""
        if self._recorder is not None:
            self._recorder.finish(obj, step)
            self._recorder = None

    def _complete(self) -> None:
        """Nothing: the trainer has told when training ended."""

    def _interrupt(self, error: BaseException) -> None:
        """Close the run as interrupted."""
        if self._recorder is not None:
            self._recorder.__exit__(type(error), error, None)
            self._recorder = None
