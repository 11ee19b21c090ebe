"""Recording inside a Lightning Trainer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ntkstats._compat import loaded
from ntkstats.errors import DependencyError
from ntkstats.torch._callback import RecordingCallback

# Two names of one library whose classes do not know each other: the program's own is meant.
_ITS_OWN = loaded("pytorch_lightning") is not None and loaded("lightning.pytorch") is None

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        Callback = import_module("pytorch_lightning" if _ITS_OWN else "lightning.pytorch").Callback
    except ImportError as error:
        _msg = (
            "LightningCallback needs Lightning, which is not installed. Install it with "
            '"pip install lightning".'
        )
        raise DependencyError(_msg) from error


class LightningCallback(RecordingCallback, Callback):
    """Records before every optimiser step of a Lightning ``Trainer``.

    Steps are those of ``trainer.global_step``: accumulated gradients count once, a run that is
    resumed from a checkpoint goes on where it was (with ``resume=True``), and several optimisers
    count one after the other. Only the first process of a distributed run records.

    Parameters
    ----------
    path, probes, collectors
        As for [`Recorder`][ntkstats.Recorder].
    model
        The LightningModule, or what `as_model` made of it. If its ``forward`` is not the network,
        ``nts.as_model(module.net, split=lambda module: module.net)``.
    options
        Other keywords of `Recorder`.

    Notes
    -----
    The final state is recorded when training ends; an exception in training leaves the run marked
    as interrupted.
    """

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Open the run."""
        if trainer.is_global_zero:
            self._open()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ARG002
        """Record if the step is due."""
        self._record(trainer.global_step, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the final state."""
        self._finish(trainer.global_step, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Mark the run as interrupted."""
        self._interrupt(exception)
