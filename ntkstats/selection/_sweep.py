"""Sums over all columns of a kernel that cannot be written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntkstats.selection._rows import Rows
from ntkstats.typing import Array


def sum_over_columns(
    kernel: Any, rows: Rows, term: Callable[[Array, Array], Array], weight: Array
) -> Array:
    """``(n,)`` sum over y of ``term(K(:, y), weight[y])``, one column at a time."""
    everyone = rows.gather(weight)

    def add(y: Array, total: Array) -> Array:
        return total + term(kernel.column(kernel.anchor(y, rows)), everyone[y])

    return jax.lax.fori_loop(0, rows.total, add, jnp.zeros(kernel.n, weight.dtype))
