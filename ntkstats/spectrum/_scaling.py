"""Bring an array to unit size without rounding it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ntkstats.typing import Array


def to_unit_scale(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Int[Array, ""]]:
    """Divide by the power of two just above the largest absolute entry.

    Dividing by a power of two is exact, so results do not depend on the scale of the input, and
    squares can neither overflow nor vanish.

    Parameters
    ----------
    x
        Array of any shape.

    Returns
    -------
    scaled
        Array of the same shape with largest absolute entry in [1/2, 1) (or all zeros).
    exponent
        Integer such that ``x = scaled * 2**exponent``.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    _, exponent = jnp.frexp(largest)
    return jnp.ldexp(x, -exponent), exponent
