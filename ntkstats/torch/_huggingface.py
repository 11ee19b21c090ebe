"""Recording inside the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from ntkstats.errors import DependencyError
from ntkstats.torch._callback import RecordingCallback

try:
    from transformers import TrainerCallback
except ImportError as error:
    _msg = (
        "HuggingFaceCallback needs transformers, which is not installed. Install it with "
        '"pip install transformers accelerate".'
    )
    raise DependencyError(_msg) from error


class HuggingFaceCallback(RecordingCallback, TrainerCallback):
    """Records before every optimiser step of the ``Trainer`` of transformers.

    Steps are those of ``state.global_step``: accumulated gradients count once, and a run that is
    resumed from a checkpoint goes on where it was (with ``resume=True``). Only the first process
    of a distributed run records.

    Parameters
    ----------
    path, probes, collectors
        As for [`Recorder`][ntkstats.Recorder].
    model
        The model, or what `as_model` made of it: with ``heads=`` that pick a few numbers a sample
        from its output, say the logits of the last token.
    options
        Other keywords of `Recorder`.

    Notes
    -----
    The final state is recorded when training ends. The trainer tells its callbacks nothing of
    exceptions: ``with HuggingFaceCallback(...) as callback:`` around ``trainer.train()`` marks the
    run as interrupted, otherwise it counts as killed. All records are safe either way.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Open the run."""
        if state.is_world_process_zero:
            self._open()

    def on_pre_optimizer_step(
        self,
        args: Any,  # noqa: ARG002
        state: Any,
        control: Any,  # noqa: ARG002
        model: Any = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Record if the step is due."""
        self._record(state.global_step, model)

    def on_train_end(
        self,
        args: Any,  # noqa: ARG002
        state: Any,
        control: Any,  # noqa: ARG002
        model: Any = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Record the final state."""
        self._finish(state.global_step, model)
