"""How the networks of the zoo are made.

Modules are only shaped, not initialised: compiling the initialisers would take longer than the
kernels. Weights are then drawn here, of the size that initialisers give them.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ntkstats.models import as_model

from ..networks import System

KEY = jax.random.key(0)
NOISE = 0.1


def draw(*shape, seed=0, scale=1.0):
    """Normal float32 numbers."""
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def whole_numbers(high, *shape, seed=0):
    """Whole numbers below `high`, such as tokens."""
    return np.random.default_rng(seed).integers(0, high, shape)


def dense_layer(n_in, n_out, seed):
    """Weight and bias of a dense layer."""
    return {"w": draw(n_in, n_out, seed=seed, scale=n_in**-0.5), "b": np.zeros(n_out, np.float32)}


def filled(shapes, *, out_axis=-1):
    """Numbers for the shapes of a module; `out_axis` is the axis of a weight's outputs."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return KEY
        noise = rng.normal(size=leaf.shape)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            value = np.zeros(leaf.shape)
        elif "var" in names:  # of a batch norm that has been trained
            value = np.exp(0.3 * noise)
        elif "mean" in names:
            value = 0.3 * noise
        elif "scale" in names:
            value = np.ones(leaf.shape)
        elif "bias" in names:
            value = np.zeros(leaf.shape)
        else:
            value = noise * (leaf.shape[out_axis] / leaf.size) ** 0.5
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def perturbed(params):
    """Parameters with noise, so that no bias is zero and no scale is one."""
    rng = np.random.default_rng(1)

    def moved(leaf):
        return jnp.asarray(np.asarray(leaf) + NOISE * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(moved, params)


def made(network, obj, x, head="output", **options):
    """A system of what goes to `as_model` and what goes to `split`."""
    model = as_model(network, **options)
    params, state = model.split(obj)
    return System(model, perturbed(params), state, x, head)


def of_linen(module, x, head="output", **options):
    return made(module, filled(jax.eval_shape(module.init, KEY, x)), x, head, **options)


def of_equinox(kind, x):
    shapes = eqx.filter_eval_shape(kind, KEY)
    arrays, static = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    module = eqx.combine(filled(arrays, out_axis=0), static)
    return made(module, module, x)


def of_nnx(kind, x):
    graph, shapes = nnx.split(nnx.eval_shape(lambda: kind(nnx.Rngs(0))))
    module = nnx.merge(graph, filled(shapes))
    return made(module, module, x)
