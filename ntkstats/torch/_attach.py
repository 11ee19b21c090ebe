"""A plain loop: the recorder hangs on the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ntkstats.errors import RecordingError
from ntkstats.recording import Recorder
from ntkstats.torch._scope import Scope


class Attached(Scope):
    """A recorder on an optimiser; from [`attach`][ntkstats.torch.attach].

    Attributes
    ----------
    step
        Number of updates so far.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        obj: Any,
        optimizer: Optimizer,
        step: int,
        extras: Callable[[], Mapping[str, Any]] | None,
    ) -> None:
        self.step = step
        self._recorder = recorder
        self._obj = obj
        self._extras = extras
        # A step that a gradient scaler leaves out calls neither hook.
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def _before(self, *_: Any) -> None:
        if self._recorder is not None and self._recorder.due(self.step):
            extras = {} if self._extras is None else self._extras()
            self._recorder(self.step, self._obj, **extras)

    def _after(self, *_: Any) -> None:
        self.step += 1

    def remove(self) -> None:
        """Take the hooks off the optimiser; the recorder stays open."""
        for handle in self._handles:
            handle.remove()

    def finish(self) -> Any:
        """Take the hooks off, record the final state and close the run; gives its report."""
        self.remove()
        if self._recorder is None:
            return None
        extras = {} if self._extras is None else self._extras()
        return self._recorder.finish(self._obj, self.step, **extras)

    def _complete(self) -> None:
        self.finish()

    def _interrupt(self, error: BaseException) -> None:
        self.remove()
        if self._recorder is not None:
            self._recorder.__exit__(type(error), error, error.__traceback__)


def attach(
    recorder: Recorder | None,
    obj: nn.Module | Any,
    optimizer: Optimizer,
    *,
    step: int = 0,
    extras: Callable[[], Mapping[str, Any]] | None = None,
) -> Attached:
    """Record before every update that an optimiser makes; no line of the loop changes.

    Parameters
    ----------
    recorder
        From `Recorder`; None does nothing, for the processes of a distributed run that are not
        the first one.
    obj
        The module, or what the recorder's model splits.
    optimizer
        Whose updates are counted.
    step
        Updates made so far, when training is resumed.
    extras
        Called when a record is due; its numbers go along with it.

    Returns
    -------
    Attached
        ``finish()`` records the final state; as a context manager it does that at the end of the
        block, and marks the run as interrupted if the block fails.

    Raises
    ------
    RecordingError
        The second or third argument is not what it should be.

    Examples
    --------
    >>> import tempfile, torch, ntkstats as nts
    >>> from ntkstats.torch import attach
    >>> folder = tempfile.TemporaryDirectory()
    >>> module, x = torch.nn.Linear(3, 1), torch.eye(3)
    >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    >>> spectrum = nts.collectors.ntk_spectrum(at=nts.RecordAt.every(2))
    >>> recorder = nts.Recorder(folder.name + "/run", module, nts.Probe(x), spectrum)
    >>> with attach(recorder, module, optimizer):
    ...     for _ in range(4):
    ...         optimizer.zero_grad()
    ...         module(x).square().mean().backward()
    ...         optimizer.step()
    >>> nts.open_run(folder.name + "/run").step.values
    array([0, 2, 4])
    >>> folder.cleanup()
    """
    if not isinstance(optimizer, Optimizer):
        msg = (
            f"attach was given a {type(optimizer).__name__} as optimizer; expected a torch "
            "optimiser. The order is attach(recorder, module, optimizer)."
        )
        raise RecordingError(msg)
    if recorder is not None and not isinstance(recorder, Recorder):
        msg = (
            f"attach was given a {type(recorder).__name__} as recorder; expected a Recorder, or "
            "None on processes that do not record. The order is attach(recorder, module, "
            "optimizer)."
        )
        raise RecordingError(msg)
    return Attached(recorder, obj, optimizer, step, extras)
