"""Checks at the public doors of this room, and in which precision they compute."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64, x64_enabled
from ntkstats.errors import SpectrumError
from ntkstats.typing import Array

P = ParamSpec("P")
R = TypeVar("R")


def in_own_precision(fn: Callable[P, R]) -> Callable[P, R]:
    """Compute in float64 when the first argument is float64, whatever the global setting.

    Outside JAX's x64 mode float64 arrays can exist, but computing with them rounds them to
    float32. The first argument decides, so float64 targets do not widen a float32 kernel.
    """

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        deciding = args[:1] or tuple(kwargs.values())
        if any(map(_is_float64, deciding)) and not x64_enabled():
            with x64():
                return fn(*args, **kwargs)
        return fn(*args, **kwargs)

    return wrapped


def _is_float64(value: Any) -> bool:
    # An array, or an operator, which says in what precision it multiplies.
    return hasattr(value, "shape") and getattr(value, "dtype", None) == np.float64


def as_kernel(K: Any, name: str = "K") -> Array:
    """Give ``K`` as a JAX array [n, n] with n >= 1, or raise SpectrumError."""
    matrix = as_real(K, name)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        msg = (
            f"{name} has shape {matrix.shape}; expected a square kernel (n, n). Pass K(x, x) of"
            " one kernel; for several kernels use jax.vmap."
        )
        raise SpectrumError(msg)
    if matrix.shape[0] == 0:
        msg = f"{name} has shape (0, 0); expected at least one row. Measure on a non-empty probe."
        raise SpectrumError(msg)
    return matrix


def as_vector(values: Any, name: str = "eigenvalues") -> Array:
    """Give ``values`` as a JAX array [n] with n >= 1, or raise SpectrumError."""
    vector = as_real(values, name)
    if vector.ndim != 1:
        msg = (
            f"{name} has shape {vector.shape}; expected one axis (n,). Compute the eigenvalues of"
            " a kernel first; for several spectra use jax.vmap."
        )
        raise SpectrumError(msg)
    if vector.shape[0] == 0:
        msg = f"{name} is empty; expected at least one entry. Measure on a non-empty probe."
        raise SpectrumError(msg)
    return vector


def as_pair(K1: Any, K2: Any) -> tuple[Array, Array]:
    """Two kernels of one size in the precision of the first, or SpectrumError."""
    first, second = as_kernel(K1, "K1"), as_kernel(K2, "K2")
    if first.shape != second.shape:
        msg = (
            f"K1 has shape {first.shape} and K2 {second.shape}; expected equal shapes. Take both"
            " kernels on the same probe, with the same outputs=."
        )
        raise SpectrumError(msg)
    return first, second.astype(first.dtype)


def as_real(values: Any, name: str) -> Array:
    """Give ``values`` as a real floating-point JAX array of at least 32 bits."""
    if not hasattr(values, "dtype") or not hasattr(values, "shape"):
        msg = (
            f"{name} is a {type(values).__name__}; expected a JAX or NumPy array. Pass the array"
            " itself (of a KernelMatrix its .matrix)."
        )
        raise SpectrumError(msg)
    if not jnp.issubdtype(values.dtype, jnp.floating) or values.dtype.itemsize < 4:
        msg = (
            f"{name} has dtype {values.dtype}; expected float32 or float64. A kernel stored in"
            " fewer bits has lost its small eigenvalues; convert integers with .astype(float)."
        )
        raise SpectrumError(msg)
    return jnp.asarray(values)
