"""The one shape in which every model reaches the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ntkstats.models._probe import Probe
from ntkstats.typing import Inputs, Outputs, Params, State

OnProbes: TypeAlias = Callable[
    [Sequence[Probe], str | None, int | None], "tuple[Model, tuple[Probe, ...]]"
]


@dataclass(frozen=True)
class Model:
    """Two pure functions around whatever object the user holds.

    Build one with [`as_model`][ntkstats.as_model]; construct it directly only for a framework
    that has no adapter.

    Attributes
    ----------
    split
        ``split(obj) -> (params, state)``. Called on the host at **every** record, so batch
        statistics are those of that moment. ``params`` is a pytree of real floating-point arrays,
        the parameters that are differentiated; ``state`` holds everything else.
    apply
        ``apply(params, state, x) -> {head: array (N, *out)}``. Pure, in evaluation mode, on a
        whole batch; ``x`` is a pytree whose leaves share the leading sample axis.
    name
        What the model is called in records and messages.
    coupled
        True when the user declared that samples interact.
    covers
        Which parameters are differentiated, in words (``"all"`` or the filter's description).
    description
        What was adapted and how it is called, e.g. ``"flax linen module MLP (train=False)"``;
        free of addresses, so that it can be stored and compared between runs.
    on_probes
        ``on_probes(probes, precision, budget_bytes) -> (model, probes)`` for a network that runs
        outside JAX and has to know its inputs beforehand: the model on these inputs, and the
        probes that stand for them there. None for all others. A recorder calls it.
    glance
        ``glance(obj) -> (params, state)`` where derivatives cost `split` much: without what only
        they need; `apply` then raises
        [`DerivativeNeededError`][ntkstats.errors.DerivativeNeededError] when it is
        differentiated. None where `split` is cheap.
    """

    split: Callable[[Any], tuple[Params, State]]
    apply: Callable[[Params, State, Inputs], Outputs]
    name: str = "model"
    coupled: bool = False
    covers: str = "all"
    description: str = ""
    on_probes: OnProbes | None = None
    glance: Callable[[Any], tuple[Params, State]] | None = None


def on_probes(
    model: Model,
    probes: Probe | Sequence[Probe],
    precision: str | None = None,
    budget_bytes: int | None = None,
) -> tuple[Model, tuple[Probe, ...]]:
    """A model that can be split and applied, and its probes.

    A torch module is given its inputs; every other model is returned as it is.

    Parameters
    ----------
    model
        From `as_model`.
    probes
        A probe, or several of different names.
    precision
        None, ``"float32"`` or ``"float64"``.
    budget_bytes
        Bound on what torch may use at a time.
    """
    listed = (probes,) if isinstance(probes, Probe) else tuple(probes)
    if model.on_probes is None or not all(isinstance(probe, Probe) for probe in listed):
        return model, listed  # whoever binds them says what is wrong
    return model.on_probes(listed, precision, budget_bytes)
