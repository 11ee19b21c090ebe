"""A model must be a function: the same outputs for the same arguments, and nothing besides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ntkstats._compat import side_effects, traces_alike
from ntkstats.errors import ModelError
from ntkstats.models._model import Model
from ntkstats.typing import Inputs, Params, State


def check_pure(model: Model, params: Params, state: State, x: Inputs) -> None:
    """Refuse random draws and side effects inside ``apply``; traces, computes nothing.

    Raises
    ------
    ModelError
        Two traces differ (numbers were drawn while tracing), or the function writes somewhere.
    """
    shapes = jax.tree.map(_shape, (params, state, x))
    effects = side_effects(model.apply, *shapes)
    if effects:
        msg = (
            f"{model.name} has side effects ({', '.join(effects)}); expected a pure function of "
            "parameters, state and inputs, since it is run many times in no particular order. "
            "Remove callbacks from the forward pass, or measure a copy of the model without them."
        )
        raise ModelError(msg)
    if not traces_alike(model.apply, *shapes):
        msg = (
            f"{model.name} is another function each time it is traced; expected the same one. It "
            "probably draws numbers with numpy.random or changes a Python variable in its forward "
            "pass. Draw them beforehand and pass them as inputs or state."
        )
        raise ModelError(msg)


def _shape(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype)
