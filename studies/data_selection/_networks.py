"""The networks that are trained, and those that pick: dense and convolutional."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.typing import Array, Inputs, Params

WINDOW = 3
"""Width of a convolution, in pixels."""


class Network(NamedTuple):
    """A network as two functions; equal settings give the same object, so programs are shared.

    Attributes
    ----------
    init
        ``init(key) -> params``.
    apply
        ``apply(params, x) -> (N, outputs)``.
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, Inputs], Array]


@cache
def dense(widths: tuple[int, ...]) -> Network:
    """Dense layers with ReLU between, He initialisation; ``widths`` from inputs to outputs."""
    return Network(partial(_init, _pairs(widths)), _dense)


@cache
def convolutional(side: int, channels: tuple[int, ...], outputs: int) -> Network:
    """Convolutions 3 x 3 with ReLU and 2 x 2 average pooling, then one dense layer."""
    fans, before = [], 1
    for after in channels:
        fans.append((WINDOW**2 * before, after))
        before, side = after, side // 2
    return Network(partial(_init, (*fans, (side * side * before, outputs))), _convolutional)


@cache
def wide(inputs: int, width: int, outputs: int) -> Network:
    """One hidden layer in the NTK parametrisation, whose limit of infinite width is known."""
    return Network(partial(_standard_normal, ((inputs, width), (width, outputs))), _wide)


def limit_kernels(x: Array) -> tuple[Array, Array]:
    """NTK and NNGP ``(N, N)`` of `wide` at infinite width (Cho and Saul, 2009)."""
    x = x.reshape(x.shape[0], -1)
    inner = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST) / x.shape[1]
    norm = jnp.sqrt(jnp.diagonal(inner))
    scale = jnp.maximum(jnp.outer(norm, norm), jnp.finfo(x.dtype).tiny)
    angle = jnp.arccos(jnp.clip(inner / scale, -1, 1))
    prior = scale * (jnp.sin(angle) + (jnp.pi - angle) * jnp.cos(angle)) / jnp.pi
    return prior + inner * (jnp.pi - angle) / jnp.pi, prior


def _pairs(widths: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(widths))


def _init(fans: tuple[tuple[int, int], ...], key: Array) -> Params:
    keys = jax.random.split(key, len(fans))
    return [
        (jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, jnp.zeros(b))
        for k, (a, b) in zip(keys, fans, strict=True)
    ]


def _standard_normal(shapes: tuple[tuple[int, int], ...], key: Array) -> Params:
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]


def _dense(params: Params, x: Inputs) -> Array:
    x = x.reshape(x.shape[0], -1)
    *hidden, (w, b) = params
    for u, c in hidden:
        x = jax.nn.relu(x @ u + c)
    return x @ w + b


def _convolutional(params: Params, x: Inputs) -> Array:
    *hidden, (w, b) = params
    for u, c in hidden:
        x = _pooled(jax.nn.relu(_patches(x) @ u + c))
    return x.reshape(x.shape[0], -1) @ w + b


def _wide(params: Params, x: Inputs) -> Array:
    x = x.reshape(x.shape[0], -1)
    u, w = params
    hidden = jax.nn.relu(x @ u / u.shape[0] ** 0.5) * 2**0.5
    return hidden @ w / w.shape[0] ** 0.5


def _patches(x: Array) -> Array:
    """``(N, h, w, 9 c)``: as products of matrices, since convolutions in loops are slow on CPU."""
    _, h, w, _ = x.shape
    edge = WINDOW // 2
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifts = [padded[:, i : i + h, j : j + w] for i in range(WINDOW) for j in range(WINDOW)]
    return jnp.concatenate(shifts, axis=-1)


def _pooled(x: Array) -> Array:
    n, h, w, c = x.shape
    even = x[:, : h // 2 * 2, : w // 2 * 2]
    return even.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
