"""A torch module as the kernels take it, outside a recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from ntkstats.errors import DuplicateNameError, ProbeError
from ntkstats.models import Model, Probe, as_model, on_probes


@overload
def on_probe(
    model: Any, probe: Probe, *, precision: str | None = None, budget_bytes: int | None = None
) -> tuple[Model, Probe]: ...
@overload
def on_probe(
    model: Any,
    probe: Sequence[Probe],
    *,
    precision: str | None = None,
    budget_bytes: int | None = None,
) -> tuple[Model, tuple[Probe, ...]]: ...
def on_probe(
    model: Any,
    probe: Probe | Sequence[Probe],
    *,
    precision: str | None = None,
    budget_bytes: int | None = None,
) -> tuple[Model, Probe | tuple[Probe, ...]]:
    """A torch module on its probes, for `empirical_ntk`, `collectors.bind` and the other doors.

    A recorder does this by itself. ``model.split(module)`` computes outputs and Jacobian on the
    probes with `torch.func`, on the device of the module, in evaluation mode. Each parameter
    array is turned so that its Jacobian has no more columns than rows (for weights of linear
    layers without forming it); kernels, norms and distances do not change by that.

    Parameters
    ----------
    model
        A torch module, or what `as_model` made of one.
    probe
        One probe or several of different names.
    precision
        ``"float64"`` computes in float64; otherwise in the precision of the module, half
        precision in float32.
    budget_bytes
        Bound on what torch may use at a time; default half of the free memory of the module's
        device, at most 4 GiB on CPU.

    Returns
    -------
    model
        Ready to be split and applied.
    probe
        What stands for the probe there: same targets, weights, name and hash.

    Raises
    ------
    ModelError, ParamsError, ProbeError, DuplicateNameError

    References
    ----------
    Novak, Sohl-Dickstein, Schoenholz (2022), *Fast finite width neural tangent kernel*: Jacobian
    contraction.

    Examples
    --------
    >>> import torch, ntkstats as nts
    >>> from ntkstats.torch import on_probe
    >>> module = torch.nn.Linear(3, 2)
    >>> model, probe = on_probe(module, nts.Probe(torch.eye(3)))
    >>> nts.empirical_ntk(model, *model.split(module), probe, outputs="trace").matrix.tolist()
    [[4.0, 2.0, 2.0], [2.0, 4.0, 2.0], [2.0, 2.0, 4.0]]
    """
    single = isinstance(probe, Probe)
    listed = (probe,) if isinstance(probe, Probe) else tuple(probe)
    if not listed or not all(isinstance(p, Probe) for p in listed):
        msg = f"probe={probe!r} was given; expected a Probe or several. Build it with nts.Probe(x)."
        raise ProbeError(msg)
    if len({p.name for p in listed}) < len(listed):
        msg = f"probes named {[p.name for p in listed]}: give each its own name, Probe(x, name=...)"
        raise DuplicateNameError(msg)
    fixed, stand_ins = on_probes(as_model(model), listed, precision, budget_bytes)
    return fixed, stand_ins[0] if single else stand_ins
