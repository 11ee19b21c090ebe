"""The one shape in which every model reaches the kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntkstats.typing import Inputs, Outputs, Params, State


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
    """

    split: Callable[[Any], tuple[Params, State]]
    apply: Callable[[Params, State, Inputs], Outputs]
    name: str = "model"
    coupled: bool = False
    covers: str = "all"
    description: str = ""
