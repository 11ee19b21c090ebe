"""Nonlinearities and initial weights by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from ntkstats.typing import Array
from studies.systems._options import Activation, Init

ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "sine": jnp.sin,
    "linear": lambda x: x,
}

# Variance of a weight times its fan; tanh keeps its signal with the first, ReLU with the second.
_VARIANCES: Mapping[Init, tuple[float, Literal["fan_in", "fan_avg"]]] = {
    "lecun": (1.0, "fan_in"),
    "he": (2.0, "fan_in"),
    "glorot": (1.0, "fan_avg"),
}


def initialiser(init: Init, scale: float = 1.0) -> Any:
    """Initial weights of a layer, ``(key, shape, dtype) -> array``.

    ``normal`` does not know the width (deviation `scale`, so that wide layers saturate or
    diverge); ``constant`` makes all units of a layer equal, which gradients cannot undo; ``zeros``
    sends nothing through more than one layer. There is no orthogonal one: under `vmap` it is a
    batch of QR decompositions, which can hang on CPUs with few cores.

    Parameters
    ----------
    init
        Its name; LeCun et al. (1998), He et al. (2015), Glorot & Bengio (2010).
    scale
        Factor of the weights, not of their variance.
    """
    if init in _VARIANCES:
        variance, mode = _VARIANCES[init]
        if scale == 0.0:
            return nn.initializers.zeros
        return nn.initializers.variance_scaling(variance * scale**2, mode, "normal")
    if init == "normal":
        return nn.initializers.normal(scale)
    return _constant(0.0 if init == "zeros" else scale)


def _constant(scale: float) -> Any:
    def make(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:  # noqa: ARG001
        fan_in = max(1, int(jnp.size(jnp.empty(shape[:-1]))))
        return jnp.full(shape, scale / fan_in, dtype)

    return make
