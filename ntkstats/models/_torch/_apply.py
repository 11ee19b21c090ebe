"""The function that JAX sees: outputs that are known, with derivatives that are known."""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from ntkstats.errors import DerivativeNeededError, ModelError
from ntkstats.typing import Array, Inputs, Outputs, Params, State

REST = ".rest"
"""Ends the names of coordinates on which no output depends; names of parameters have no dot."""


def apply(params: Params, state: State, x: Inputs) -> Outputs:
    """The outputs of the probe's rows, with their derivatives."""
    ((probe, index),) = x.items()
    known = state[probe]
    leaves = [leaf for path, leaf in params.items() if not path.endswith(REST)]
    result = {}
    for head, outputs in known["outputs"].items():
        value = jnp.asarray(outputs)[index]
        flat = value.reshape(value.shape[0], -1)
        if "jacobian" in known:
            for leaf, block in zip(leaves, known["jacobian"][head], strict=True):
                flat = flat + _moved(leaf, jnp.asarray(block)[index])
        else:
            for leaf in leaves:
                flat = flat + _unknown(leaf, flat)
        result[head] = flat.reshape(value.shape)
    return result


@jax.custom_jvp
def _moved(theta: Array, rows: Array) -> Array:  # noqa: ARG001
    """Zeros ``(n, C)`` whose derivative in ``theta`` are the rows."""
    return jnp.zeros(rows.shape[:-1], rows.dtype)


@_moved.defjvp
def _moved_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    theta, rows = primals
    change = jnp.einsum("nck,k->nc", _to_first_order(rows, theta), tangents[0])
    return _moved(theta, rows), change


@jax.custom_jvp
def _unknown(theta: Array, like: Array) -> Array:  # noqa: ARG001
    """Zeros whose derivative was not computed."""
    return jnp.zeros_like(like)


@_unknown.defjvp
def _ask_for_it(primals: Any, tangents: Any) -> NoReturn:  # noqa: ARG001
    msg = (
        "the outputs of a torch module were differentiated after a glance at it; expected "
        "Model.split, which computes their derivatives."
    )
    raise DerivativeNeededError(msg)


@jax.custom_jvp
def _to_first_order(rows: Array, theta: Array) -> Array:  # noqa: ARG001
    return rows


@_to_first_order.defjvp
def _refuse(primals: Any, tangents: Any) -> NoReturn:  # noqa: ARG001
    msg = (
        "a second derivative of a torch module was asked for; expected first ones only, since "
        "JAX knows its outputs and its Jacobian and nothing else. Measure curvature in torch and "
        "pass it to the recorder by keyword."
    )
    raise ModelError(msg)
