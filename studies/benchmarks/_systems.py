"""The networks that benchmarks run on, as plain functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.typing import Array


class System(NamedTuple):
    """A network and data of its shape.

    Attributes
    ----------
    name
        For the table.
    init
        ``init(key) -> params``.
    apply
        ``apply(params, x) -> logits``.
    x, y
        Inputs and labels.
    """

    name: str
    init: Any
    apply: Any
    x: Array
    y: Array


def mlp(widths: tuple[int, ...], n: int, n_in: int = 784, n_out: int = 10) -> System:
    """ReLU network with the given hidden widths."""
    sizes = (n_in, *widths, n_out)

    def init(key: Array) -> Any:
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return [(jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros(b)) for k, a, b in pairs]

    def apply(params: Any, x: Array) -> Array:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return x @ w + b

    x, y = _data((n, n_in), n_out)
    return System(f"MLP {'-'.join(map(str, sizes))}, N={n}", init, apply, x, y)


def cnn(channels: int, n: int, n_out: int = 10) -> System:
    """Three 3x3 convolutions (strides 1, 2, 2), global mean, dense."""
    widths = (1, channels, 2 * channels, 2 * channels)

    def init(key: Array) -> Any:
        keys = jax.random.split(key, 4)
        convolutions = [
            (jax.random.normal(k, (3, 3, a, b)) / (9 * a) ** 0.5, jnp.zeros(b))
            for k, a, b in zip(keys[:3], widths[:-1], widths[1:], strict=True)
        ]
        last = (jax.random.normal(keys[3], (widths[-1], n_out)) / widths[-1] ** 0.5, jnp.zeros(10))
        return {"convolutions": convolutions, "head": last}

    def apply(params: Any, x: Array) -> Array:
        for i, (w, b) in enumerate(params["convolutions"]):
            stride = (1, 1) if i == 0 else (2, 2)
            x = jax.lax.conv_general_dilated(
                x, w, stride, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + b)
        w, b = params["head"]
        return x.mean((1, 2)) @ w + b

    x, y = _data((n, 28, 28, 1), n_out)
    return System(f"CNN {channels}-{2 * channels}-{2 * channels}, N={n}", init, apply, x, y)


def _data(shape: tuple[int, ...], n_out: int) -> tuple[Array, Array]:
    key = jax.random.key(7)
    return jax.random.normal(key, shape), jax.random.randint(key, shape[:1], 0, n_out)
