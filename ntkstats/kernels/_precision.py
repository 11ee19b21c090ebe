"""Run a whole measurement in float64, from the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ntkstats._compat import inside_trace, is_tracer, leaves_float64, x64
from ntkstats.errors import PrecisionError
from ntkstats.models import Model
from ntkstats.typing import Inputs, Params, PyTree, State

T = TypeVar("T")
PRECISIONS = ("float32", "float64")


def check_precision(precision: str | None) -> str:
    """``"float32"`` (also for None) or ``"float64"``."""
    if precision is None:
        return "float32"
    if precision not in PRECISIONS:
        message = f"precision={precision!r} was given; expected None or one of {PRECISIONS}."
        raise PrecisionError(message)
    return precision


def to_float64(tree: PyTree) -> PyTree:
    """Every real floating leaf as float64; call it under x64."""
    return jax.tree.map(_widen, tree)


def _widen(leaf: Any) -> Any:
    if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return jnp.asarray(leaf, jnp.float64)


def at_precision(precision: str | None, fn: Callable[..., T], *trees: PyTree) -> T:
    """``fn(*trees)`` as it is, or traced under JAX's x64 mode with float64 leaves.

    Raises
    ------
    PrecisionError
        If the precision is unknown, or float64 is asked for inside a trace: somebody's float32
        trace cannot be widened from inside.
    """
    if check_precision(precision) != "float64":
        return fn(*trees)
    if inside_trace() or any(is_tracer(leaf) for leaf in jax.tree.leaves(trees)):
        message = (
            "precision='float64' was asked for inside a function that JAX is tracing (jit, scan, "
            "vmap or grad); expected concrete arrays, since a float64 measurement is traced from "
            "the host. Call it outside, or use float32 here."
        )
        raise PrecisionError(message)
    with x64():
        return fn(*(to_float64(tree) for tree in trees))


def check_float64(model: Model, params: Params, state: State, x: Inputs, head: str) -> None:
    """Refuse a model that leaves float64 on the way; call it under x64 with widened arrays."""
    dtype = jax.eval_shape(model.apply, params, state, x)[head].dtype

    def output(*args: PyTree) -> PyTree:
        return model.apply(*args)[head]

    if dtype != jnp.float64 or leaves_float64(output, params, state, x):
        message = (
            f"precision='float64' was given and {model.name} rounds to a narrower type on the way "
            f"to its {dtype} output; expected float64 throughout. Remove the cast inside the model "
            "(e.g. dtype= of its layers)."
        )
        raise PrecisionError(message)
