"""Decide once, on the host, how a kernel is computed; then compute it as often as needed.

`plan` is the door through which an engine is chosen (``method=``).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import is_tracer, x64_enabled
from ntkstats.errors import KernelError, ModelError
from ntkstats.kernels._decide import METHODS, Decision, Request, Share, decide
from ntkstats.kernels._prepared import KernelPlan
from ntkstats.kernels._tiling import default_budget
from ntkstats.kernels._types import OUTPUT_MODES, n_samples
from ntkstats.models import Model, Probe, check_model
from ntkstats.typing import Array, Inputs, Params, State

DEFAULT_DRAWS = 8


# Decisions live as long as their models do.
_DECISIONS: weakref.WeakKeyDictionary[Model, dict[Hashable, Decision]] = weakref.WeakKeyDictionary()


def plan(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    head: str | None = None,
    outputs: str = "full",
    method: str = "auto",
    budget_bytes: int | None = None,
    lanes: int = 1,
    draws: int = DEFAULT_DRAWS,
    average_outputs: bool = False,
    key: Array | None = None,
    n_rows: int = 1,
    pairs: bool = True,
    cross: Probe | Inputs | None = None,
    checked: bool = False,
    wide: bool = False,
    share: Share | None = None,
) -> KernelPlan:
    """Prepare a kernel computation: check the model, choose the engine and the tiles.

    The samples are tested for interactions once for each model and set of shapes; what was
    decided is remembered as long as the model lives.

    Parameters
    ----------
    model
        From `as_model`.
    params, state
        ``model.split(obj)``.
    probe
        Inputs.
    head
        Which output; may be left out when there is one.
    outputs
        ``"full"``, ``"trace"``, ``"sum"`` or ``"probe"``, see
        [`empirical_ntk`][ntkstats.kernels.empirical_ntk]; ``"given"`` for cotangents passed at
        run time.
    method
        ``"auto"`` takes the structured engine where it can be used (a warning says where not),
        ``"structured"`` insists on it, ``"reference"`` writes every Jacobian row out.
    budget_bytes
        Bound on transients plus result over all lanes; arrays that exist on entry do not count.
        Default: half of the device's memory, at most 4 GiB on CPU.
    lanes
        How many members will be computed side by side (under ``vmap``).
    draws
        Number of sign vectors of the probe kernel.
    average_outputs
        Divide by C, as neural-tangents does for its traced kernels.
    key
        PRNG key of the sign vectors; required for ``outputs="probe"``.
    n_rows
        Cotangents a sample for ``outputs="given"``.
    pairs
        False for a plan of which only the diagonal is used: the matrix then need not fit the
        budget.
    cross
        Inputs of the other side, for one of the two plans of a cross kernel.
    checked
        The model was already checked on this probe.
    wide
        Refuse a model that leaves float64; the arrays are float64, under x64 mode.
    share
        What one of several devices computes; the probe then only serves the checks.

    Raises
    ------
    KernelError, HeadError, ModelError, ProbeError, ParamsError, BudgetError, PrecisionError

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats.models import as_model
    >>> model = as_model(lambda params, x: jnp.tanh(x @ params))
    >>> params, state = model.split(jnp.ones((3, 2)))
    >>> prepared = plan(model, params, state, jnp.eye(3), outputs="trace", budget_bytes=2**20)
    >>> prepared.tiling.samples, prepared.tiling.rows
    (3, 2)
    >>> over_time = jnp.stack([params, 2 * params])
    >>> jax.lax.map(lambda p: prepared.gram(p, state, jnp.eye(3)).trace, over_time).shape
    (2,)
    """
    _check_options(model, outputs, method, average_outputs, key)
    request = Request(
        head,
        outputs,
        method,
        default_budget() if budget_bytes is None else _positive("budget_bytes", budget_bytes),
        _positive("lanes", lanes),
        _positive("draws", draws),
        average_outputs,
        _positive("n_rows", n_rows),
        pairs,
        None if cross is None else n_samples(as_inputs(cross)),
        wide,
        share,
    )
    decision = _decision(model, params, state, probe, request, checked=checked)
    signs = None
    if outputs == "probe" and key is not None:
        signs = _signs(key, (draws, decision.task.n_outputs))
    return KernelPlan(
        model,
        decision.task,
        decision.streams,
        decision.diagonal_streams,
        signs,
        request.budget_bytes,
        decision.diagonal_streams[0].engine.name,
    )


def _decision(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    request: Request,
    *,
    checked: bool,
) -> Decision:
    """Check the model and decide, or remember that this was done for equal shapes."""
    x = as_inputs(probe)
    # Inside a trace there are no numbers to check; shapes are checked all the same.
    traced = any(map(is_tracer, jax.tree.leaves((params, state, x))))
    unchecked = checked or traced
    if not unchecked and not isinstance(probe, Probe):
        probe = Probe(x)
    shapes = jax.tree.map(_shape, (params, state, x))
    leaves, structure = jax.tree.flatten(shapes)
    here = x64_enabled(), jax.default_backend()
    key = (request, unchecked, traced, tuple(leaves), structure, *here)
    known = _DECISIONS.setdefault(model, {})
    if key not in known:
        heads = (
            jax.eval_shape(model.apply, params, state, x)
            if unchecked
            else check_model(model, params, state, probe)
        )
        # The engine is tested even if the model need not be.
        numbers = None if traced else (params, state, x)
        decision = decide(model, request, heads, shapes, numbers)
        if not decision.fleeting:
            known[key] = decision
        return decision
    return known[key]


def _signs(key: Array, shape: tuple[int, int]) -> Array:
    """Random signs; made of bits, since random floats change with the precision in force."""
    return 2.0 * (jax.random.bits(key, shape, jnp.uint32) >> 31).astype(jnp.float32) - 1.0


def _check_options(
    model: Model, outputs: str, method: str, average_outputs: bool, key: Array | None
) -> None:
    if not isinstance(model, Model):
        message = (
            f"model is a {type(model).__name__}; expected a Model. Adapt the network with "
            "ntkstats.as_model."
        )
        raise ModelError(message)
    if outputs not in (*OUTPUT_MODES, "given"):
        message = f"outputs={outputs!r} was given; expected one of {OUTPUT_MODES}."
        raise KernelError(message)
    if method not in METHODS:
        message = f"method={method!r} was given; expected one of {METHODS}."
        raise KernelError(message)
    if outputs == "probe" and key is None:
        message = (
            "outputs='probe' draws random sign vectors and key is None; expected a PRNG key. Pass "
            "key=jax.random.key(seed)."
        )
        raise KernelError(message)
    if average_outputs and outputs not in ("trace", "sum", "probe"):
        message = (
            f"average_outputs=True was given with outputs={outputs!r}, which has no outputs to "
            "average; expected 'trace', 'sum' or 'probe'. Leave it out."
        )
        raise KernelError(message)


def _positive(name: str, value: Any) -> int:
    """A count or a size as an integer."""
    number = isinstance(value, int | float | np.integer | np.floating)
    if not number or isinstance(value, bool) or not 1 <= value < math.inf or value != int(value):
        message = f"{name}={value!r} was given; expected a whole number, at least 1."
        raise KernelError(message)
    return int(value)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype)


def as_inputs(probe: Probe | Any) -> Inputs:
    """The inputs of a probe, or the inputs themselves."""
    return probe.x if isinstance(probe, Probe) else probe


def weight_of(probe: Probe | Any) -> Array | None:
    """``(N,)`` weights of a probe, None when it has none."""
    if not isinstance(probe, Probe) or probe.weight is None:
        return None
    return jnp.asarray(probe.weight)
