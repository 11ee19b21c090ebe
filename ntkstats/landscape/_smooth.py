"""Whether a gradient is continuous."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64
from ntkstats.landscape._problem import Problem
from ntkstats.typing import Array

_LINES = 16
_POINTS = 17
_BISECTIONS = 20


def largest_jump(problem: Problem, key: Array) -> float:
    """Share of the gradient's change along a line that no refinement makes smaller.

    Along lines between random starts, the interval across which the gradient changes most is
    halved again and again. On a smooth loss the change shrinks with the interval, a million times
    after twenty halvings; a kink keeps it.

    Returns
    -------
    float
        Near 0 for a smooth loss, near 1 for one with kinks; the largest over 16 lines.
    """
    with x64():
        data = problem.data_as(np.float64)
        ends = problem.starts(key, 2 * _LINES).astype(np.float64)
        gradient = jax.vmap(jax.grad(problem.value), (0, None))

        def on_line(a: Array, b: Array) -> Array:
            def halve(_: Array, bounds: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
                low, high, first = bounds
                t = jnp.linspace(0, 1, _POINTS)[:, None]
                t = low + (high - low) * t
                g = gradient(a + t * (b - a), data)
                change = jnp.linalg.norm(jnp.diff(g, axis=0), axis=-1)
                worst = jnp.argmax(change)
                # The first look says how much there is; the last one how much stays.
                first = jnp.where(first < 0, jnp.max(change), first)
                return t[worst, 0], t[worst + 1, 0], first

            low, high, first = jax.lax.fori_loop(0, _BISECTIONS // 4, halve, (0.0, 1.0, -1.0))
            g = gradient(jnp.stack([a + low * (b - a), a + high * (b - a)]), data)
            return jnp.linalg.norm(g[1] - g[0]) / jnp.maximum(first, 1e-300)

        jumps = jax.jit(jax.vmap(on_line))(jnp.asarray(ends[:_LINES]), jnp.asarray(ends[_LINES:]))
    return float(np.nanmax(np.asarray(jumps)))
