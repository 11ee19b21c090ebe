"""Losses as collectors need them: one value a sample."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ntkstats.collectors._binding import Binding
from ntkstats.errors import CollectorError, MissingTargetsError
from ntkstats.typing import Array, LossFn


def mse(output: Array, y: Array) -> Array:
    """Mean over the outputs of the squared error, ``(N,)``.

    Parameters
    ----------
    output
        ``(N, *out)``.
    y
        Targets of the same size a sample, e.g. ``(N,)`` for one output.
    """
    error = output - y.reshape(output.shape).astype(output.dtype)
    return jnp.mean(error.reshape(error.shape[0], -1) ** 2, axis=1)


def cross_entropy(output: Array, y: Array) -> Array:
    """Softmax cross-entropy of logits, ``(N,)`` in nats.

    Parameters
    ----------
    output
        Logits ``(N, C)`` (not probabilities).
    y
        Integer labels ``(N,)``, or a distribution ``(N, C)``.

    Raises
    ------
    ValueError
        There is no second output: the softmax of a single one is 1 whatever it is.
    """
    if output.ndim < 2 or output.shape[-1] < 2:
        message = (
            f"softmax cross-entropy needs at least 2 logits a sample, and the outputs have shape "
            f"{output.shape}; give the network one output a class, or pass a loss of your own."
        )
        raise ValueError(message)
    if jnp.issubdtype(y.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(output, y)
    return optax.softmax_cross_entropy(output, y.astype(output.dtype))


NAMED = {"mse": mse, "cross_entropy": cross_entropy}


def loss_name(loss: LossFn | str) -> str:
    """What the loss is called in records."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def resolve(loss: LossFn | str) -> LossFn:
    """A loss function from a function or one of the built-in names."""
    if callable(loss):
        return loss
    if loss not in NAMED:
        message = f"loss={loss!r}, expected a function loss(output, y) or one of {list(NAMED)}."
        raise CollectorError(message)
    return NAMED[loss]


def per_sample(loss: LossFn | str, binding: Binding, head: str) -> LossFn:
    """``loss(outputs, y) -> (N,)`` from a per-sample loss or from a batch mean or sum.

    A loss that returns a scalar is evaluated on batches of one sample; that is right exactly when
    the scalar is the mean or the sum of independent terms, which is checked on the probe.

    Raises
    ------
    MissingTargetsError
        When the probe has no targets.
    CollectorError
        When the loss fails on the probe or mixes samples.
    """
    fn = resolve(loss)
    name = loss_name(loss)
    probe = binding.probe
    if probe.y is None:
        message = (
            f"loss {name!r} needs targets, but probe {probe.name!r} has none. "
            "Build it with Probe(x, y)."
        )
        raise MissingTargetsError(message)
    y = jnp.asarray(probe.y)
    outputs = jax.jit(binding.model.apply)(binding.params, binding.state, probe.x)[head]
    try:
        value = fn(outputs, y)
    except Exception as error:
        message = (
            f"loss {name!r} failed on outputs {outputs.shape} and targets {y.shape}: {error} "
            "Expected loss(output, y) -> (N,) or a scalar mean."
        )
        raise CollectorError(message) from error
    n = outputs.shape[0]
    if jnp.shape(value) == (n,):
        return fn
    if jnp.shape(value) != ():
        message = (
            f"loss {name!r} returned shape {jnp.shape(value)}; expected one value a sample "
            f"({n},) or a scalar mean over samples."
        )
        raise CollectorError(message)

    def lifted(outputs: Array, y: Array) -> Array:
        return jax.vmap(lambda out, target: fn(out[None], target[None]))(outputs, y)

    each = lifted(outputs, y)
    for total in (each.mean(), each.sum()):
        # Reductions in another order differ by rounding only.
        if jnp.allclose(value, total, rtol=1e-3, atol=1e-6, equal_nan=True):
            return lifted
    message = (
        f"loss {name!r} returned {float(value):.6g} for the probe, but its samples one by one "
        f"average to {float(each.mean()):.6g}: it mixes samples or adds a term of its own (a "
        "penalty on parameters?). Pass a loss that returns one value a sample."
    )
    raise CollectorError(message)
