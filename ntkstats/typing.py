"""Names of arrays and functions used throughout the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array
"""A JAX array (or a tracer)."""

ArrayLike: TypeAlias = jax.Array | np.ndarray
"""A JAX or NumPy array."""

PyTree: TypeAlias = Any
"""Any nesting of dicts, lists, tuples and registered nodes with arrays as leaves."""

Params: TypeAlias = PyTree
"""The differentiated parameters: a pytree of inexact arrays."""

State: TypeAlias = PyTree
"""Everything else the model reads: frozen parameters, batch statistics, keys."""

Inputs: TypeAlias = PyTree
"""A pytree of arrays that share one leading sample axis."""

Outputs: TypeAlias = dict[str, Array]
"""``{head: array (N, *out)}``; a model with one head calls it ``"output"``."""

Record: TypeAlias = dict[str, Array]
"""What one measurement produced: ``{field: array}``."""

LossFn: TypeAlias = Callable[[Any, Any], Array]
"""``loss(output, y)``: one value a sample ``(N,)``, or their mean or sum as a scalar."""


class Estimate(NamedTuple):
    """A number that never comes bare.

    Attributes
    ----------
    value
        The estimate.
    stderr
        Its standard error; 0 when ``method`` is ``"exact"``.
    method
        How it was obtained.
    cost
        Evaluations spent, in the unit the method states (VJPs, matrix-vector products, kernels).
    seed
        Seed of the random numbers, None when there are none.
    """

    value: Array
    stderr: Array
    method: str
    cost: int
    seed: int | None
