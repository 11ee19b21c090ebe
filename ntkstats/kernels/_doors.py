"""What the eager doors share: a fresh plan, in the precision asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ntkstats.kernels._plan import as_inputs, plan
from ntkstats.kernels._precision import at_precision
from ntkstats.kernels._prepared import KernelPlan
from ntkstats.models import Model, Probe
from ntkstats.typing import Inputs, Params, State

T = TypeVar("T")


def planned(
    compute: Callable[[KernelPlan, Params, State, Inputs], T],
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    precision: str | None,
    **options: Any,
) -> T:
    """``compute(plan, params, state, x)``, everything in the precision asked for.

    The options are those of `plan`.
    """

    def run(params: Params, state: State, x: Inputs) -> T:
        prepared = prepare(model, params, state, x, probe, precision=precision, **options)
        return compute(prepared, params, state, x)

    return at_precision(precision, run, params, state, as_inputs(probe))


def prepare(
    model: Model,
    params: Params,
    state: State,
    x: Inputs,
    probe: Probe | Inputs,
    *,
    precision: str | None,
    **options: Any,
) -> KernelPlan:
    """Plan inside `at_precision`, where ``x`` holds the inputs of the probe."""
    wide = precision == "float64"
    # A probe was checked when it was made; wider copies of its inputs are not the probe.
    return plan(model, params, state, x if wide else probe, wide=wide, **options)
