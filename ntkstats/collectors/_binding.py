"""What is known about a measurement before its first number."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from ntkstats.models import Model, Probe
from ntkstats.typing import Array, Params, State


@dataclass(frozen=True, eq=False)
class Binding:
    """Everything known before the first number: one model on one probe.

    Attributes
    ----------
    model, probe
        What is measured, and where.
    params, state
        An example (one member), for shapes and eager checks.
    heads
        ``{head: shape}`` of the model's outputs on the probe.
    key
        PRNG key of random sign vectors.
    budget_bytes, lanes
        Passed to kernel plans.
    """

    model: Model
    probe: Probe
    params: Params
    state: State
    heads: dict[str, jax.ShapeDtypeStruct]
    key: Array
    budget_bytes: int | None
    lanes: int
