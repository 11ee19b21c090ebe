"""A mirror for Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ntkstats.errors import RecordingError
from ntkstats.recording.mirrors._optional import optional


class WandbSink:
    """Logs the scalars of each record to Weights & Biases.

    Needs the extra ``wandb``. ``WandbSink("project", mode="offline")`` needs neither account nor
    network; ``wandb sync`` uploads such a run later.

    Parameters
    ----------
    project
        Project of a run of its own, opened at the first record and finished with the recorder.
        A run that the program holds already is left alone.
    run
        A run to share instead of opening one (what ``wandb.init`` returned); it is not finished
        here. Log to it with ``run.log(..., step=step)``, where ``step`` counts updates as in the
        recorder.
    options
        Passed to ``wandb.init`` (``mode``, ``name``, ``group``, ``config``, ``dir``, ...).

    Raises
    ------
    DependencyError
        wandb is not installed.
    RecordingError
        Both a run and options for another one were given.

    Notes
    -----
    A W&B run takes steps in rising order only and forgets none. So a resumed run is best a second
    W&B run, which is what happens by default: give both attempts the same ``group``, and the
    second one starts at the step where it was resumed. Continued with ``id=..., resume="must"``
    it keeps the points of the first attempt, and the records that are not later than those are
    left out, with one warning; the run store has them all. No point is ever shown twice.

    If the run cannot be opened that is warned about once and not tried again.
    """

    def __init__(self, project: str | None = None, *, run: Any = None, **options: Any) -> None:
        if run is not None and (project is not None or options):
            given = sorted(options if project is None else {"project", *options})
            msg = (
                f"run={run!r} was given together with {given}, which describe a new run; expected "
                "one or the other. Leave out run=, or pass those to your own wandb.init"
            )
            raise RecordingError(msg)
        self._run = run
        self._own = run is None
        self._wandb = optional("wandb", user="WandbSink", extra="wandb")
        # Otherwise wandb hands out a run that is open already, which `close` would finish.
        self._options = {"project": project, "reinit": "create_new", **options}
        self._failed = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values at that step.

        Raises
        ------
        RecordingError
            The run is beyond that step already, or could not be opened.
        """
        run = self._opened()
        if step < run.step:
            msg = (
                f"step {step} was given to a W&B run that is at step {run.step}, and such runs "
                "take rising steps only; log to it with step=..., or give the mirror a run of its "
                "own"
            )
            raise RecordingError(msg)
        # In a run of its own nobody else adds to the row; in a shared one the loop still may.
        run.log(dict(values), step=step, commit=self._own)

    def flush(self) -> None:
        """Nothing to do: wandb passes on what it gets by itself."""

    def close(self) -> None:
        """Finish the run if it was opened here."""
        if self._own and self._run is not None:
            run, self._run = self._run, None
            run.finish()

    def _opened(self) -> Any:
        if self._failed:
            msg = "the W&B run could not be opened before, and is not tried again"
            raise RecordingError(msg)
        if self._run is None:
            self._failed = True  # a slow refusal must not be repeated at every record
            self._run = self._wandb.init(**self._options)
            self._failed = False
        return self._run
