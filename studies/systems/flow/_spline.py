"""Circular splines: smooth monotone maps of an angle onto itself, with an inverse in closed form.

Pieces of monotone rational quadratics (Gregory & Delbourgo, 1982; Durkan et al., 2019); on a circle
the slope at the end is that at the beginning (Rezende et al., 2020).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.typing import Array

_LEAST = 1e-3  # of the share of a bin, and of a slope
FULL = 2 * jnp.pi


class Spline(NamedTuple):
    """Knots of an increasing map of [0, 2 pi]; leaves ``(N, bins + 1)``."""

    x: Array
    y: Array
    slope: Array


def spline(widths: Array, heights: Array, slopes: Array) -> Spline:
    """Make one from unconstrained numbers ``(N, bins)`` each; zeros give the identity."""

    def knots(free: Array) -> Array:
        bins = free.shape[-1]
        shares = _LEAST + (1 - _LEAST * bins) * jax.nn.softmax(free, axis=-1)
        inner = FULL * jnp.cumsum(shares[..., :-1], axis=-1)
        ends = jnp.zeros_like(free[..., :1])
        return jnp.concatenate([ends, inner, ends + FULL], axis=-1)

    one = jnp.log(jnp.expm1(1 - _LEAST))  # softplus of it, plus the least slope, is 1
    slope = _LEAST + jax.nn.softplus(slopes + one)
    return Spline(knots(widths), knots(heights), jnp.concatenate([slope, slope[..., :1]], -1))


def forward(s: Spline, x: Array) -> tuple[Array, Array]:
    """``(N,)`` images of angles in [0, 2 pi], and the logarithm of the derivative."""
    x0, y0, width, height, left, right = _bin(s, s.x, x)
    mean = height / width
    t = (x - x0) / width
    middle = t * (1 - t)
    below = mean + (left + right - 2 * mean) * middle
    y = y0 + height * (mean * t**2 + left * middle) / below
    above = mean**2 * (right * t**2 + 2 * mean * middle + left * (1 - t) ** 2)
    return y, jnp.log(above) - 2 * jnp.log(below)


def inverse(s: Spline, y: Array) -> Array:
    """``(N,)`` angles in [0, 2 pi] that `forward` takes to `y`."""
    x0, y0, width, height, left, right = _bin(s, s.y, y)
    mean = height / width
    up = y - y0
    bend = left + right - 2 * mean
    a = height * (mean - left) + up * bend
    b = height * left - up * bend
    c = -mean * up
    # of the two ways to write the root, the one without cancellation
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0))
    return x0 + width * 2 * c / (-b - root)


def _bin(s: Spline, knots: Array, at: Array) -> tuple[Array, ...]:
    i = jnp.sum(at[:, None] >= knots[:, 1:-1], axis=-1)[:, None]

    def take(values: Array, k: Array) -> Array:
        return jnp.take_along_axis(values, k, axis=-1)[:, 0]

    x0, y0 = take(s.x, i), take(s.y, i)
    width, height = take(s.x, i + 1) - x0, take(s.y, i + 1) - y0
    return x0, y0, width, height, take(s.slope, i), take(s.slope, i + 1)
