"""What is left of a kernel after some samples are known, one pivot at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from ntkstats.selection._columns import matmul
from ntkstats.selection._rows import Rows
from ntkstats.typing import Array

RESOLUTION = 16.0
"""Residual variances below this many eps of the prior variance are rounding error."""


class Pivots(NamedTuple):
    """Partial pivoted Cholesky factorisation.

    Attributes
    ----------
    factor
        ``(slots, n)``: row j is column j of L, for the local rows.
    left
        ``(n,)`` residual variances, never negative.
    nearest
        ``(n,)`` squared distance to the nearest pivot, infinite before the first.
    """

    factor: Array
    left: Array
    nearest: Array


def start(kernel: Any, slots: int) -> Pivots:
    """Nothing is known yet."""
    diagonal = kernel.diagonal()
    nearest = jnp.full_like(diagonal, jnp.inf)
    return Pivots(jnp.zeros((slots, kernel.n), diagonal.dtype), diagonal, nearest)


def residual_column(pivots: Pivots, kernel: Any, rows: Rows, i: Array) -> tuple[Array, Array]:
    """``(n,)`` column i of the kernel, and what is left of it."""
    column = kernel.column(kernel.anchor(i, rows))
    mine = rows.take(pivots.factor, i, axis=1)
    return column, column - matmul(mine, pivots.factor)


def condition(
    pivots: Pivots, kernel: Any, rows: Rows, i: Array, slot: Array, noise: Array | float = 0.0
) -> tuple[Pivots, Array]:
    """Make sample ``i`` known (with an observation noise), and give its residual column."""
    column, left = residual_column(pivots, kernel, rows, i)
    pivot = rows.take(left, i) + noise
    diagonal = kernel.diagonal()
    # A pivot that is rounding error (its sample was explained by the others) teaches nothing.
    resolved = pivot > RESOLUTION * jnp.finfo(left.dtype).eps * rows.take(diagonal, i)
    scaled = jnp.where(resolved, left / jnp.sqrt(jnp.where(resolved, pivot, 1)), 0)
    variance = jnp.maximum(pivots.left - scaled**2, 0)
    exact = (noise == 0) & rows.owns(i)
    factor = pivots.factor.at[slot].set(scaled)
    nearest = jnp.minimum(pivots.nearest, squared_distance(kernel, rows, i, column))
    return Pivots(factor, jnp.where(exact, 0, variance), nearest), left


def resolved(values: Array, scale: Array) -> Array:
    """Values with those below rounding error of ``scale`` set to zero."""
    limit = RESOLUTION * jnp.finfo(values.dtype).eps * scale
    return jnp.where(values > limit, values, 0)


def squared_distance(kernel: Any, rows: Rows, i: Array, column: Array) -> Array:
    """``(n,)`` squared distance to sample i in the feature space of the kernel."""
    diagonal = kernel.diagonal()
    total = diagonal + rows.take(diagonal, i)
    return jnp.where(rows.owns(i), 0, resolved(total - 2 * column, total))
