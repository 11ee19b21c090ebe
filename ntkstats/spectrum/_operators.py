"""What the large-kernel routines need of a kernel: its size, its dtype and products with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntkstats._compat import is_tracer
from ntkstats.errors import SpectrumError
from ntkstats.spectrum._checks import as_kernel
from ntkstats.typing import Array


class Operator(NamedTuple):
    """A kernel as it is used here.

    Attributes
    ----------
    n
        Its size.
    dtype
        Of vectors and products.
    matrix
        The stored kernel [n, n]; None if there are only products.
    product
        ``product(V [n, k]) -> K V [n, k]`` for a kernel that is not stored.
    """

    n: int
    dtype: Any
    matrix: Array | None
    product: Callable[[Array], Array] | None


def as_operator(K: Any) -> Operator:
    """A stored kernel or anything square with ``@`` or ``matvec``, or SpectrumError."""
    if isinstance(K, (jax.Array, np.ndarray)):
        matrix = as_kernel(K)
        return Operator(matrix.shape[0], matrix.dtype, matrix, None)
    multiplies = hasattr(type(K), "__matmul__") or hasattr(K, "matvec")
    if not (multiplies and hasattr(K, "shape") and hasattr(K, "dtype")):
        msg = (
            f"K is a {type(K).__name__}; expected a kernel (n, n) or an operator with .shape,"
            " .dtype and @ (or .matvec). Pass the array itself (of a KernelMatrix its .matrix) or"
            " an ntk_operator."
        )
        raise SpectrumError(msg)
    shape, dtype = tuple(K.shape), np.dtype(K.dtype)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        msg = (
            f"K has shape {shape}; expected a square, non-empty kernel (n, n). Take the operator"
            " of one set of samples with itself."
        )
        raise SpectrumError(msg)
    if dtype not in (np.float32, np.float64):
        msg = f"K has dtype {dtype}; expected float32 or float64. Convert it with .astype(float)."
        raise SpectrumError(msg)

    def product(V: Array) -> Array:
        if hasattr(type(K), "__matmul__"):
            return jnp.asarray(K @ V, dtype)
        return jnp.stack([jnp.asarray(K.matvec(column), dtype) for column in V.T], axis=1)

    return Operator(shape[0], dtype, None, product)


def stored_product(K: Float[Array, "n n"]) -> tuple[Callable[[Array], Array], Array]:
    """Products with a stored kernel at unit scale, and the exponent of that scale.

    Only reads K: no scaled or symmetrised copy of what may fill the memory, and nothing but
    matrix products and a maximum, so that rows on many devices stay where they are.
    """
    _, exponent = jnp.frexp(jnp.max(jnp.abs(K)))
    half = exponent // 2

    def product(V: Array) -> Array:
        # Half of the scale before and half after, since K V may leave the range of float32.
        scaled = jnp.matmul(K, jnp.ldexp(V, -half), precision="highest")
        return jnp.ldexp(scaled, half - exponent)

    return product, exponent


def check_key(key: Any) -> Array:
    """Give the key, or raise SpectrumError if it is none."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32
    if not (typed and key.ndim == 0) and not (raw and key.ndim == 1):
        what = "None" if key is None else f"a {type(key).__name__}"
        if typed or raw:
            what = f"an array of shape {key.shape} of them"
        msg = f"key is {what}; expected one PRNG key. Pass key=jax.random.key(seed)."
        raise SpectrumError(msg)
    return key


def seed_of(key: Array) -> int | None:
    """Seed with which ``jax.random.key`` makes this key; None if it was made otherwise."""
    if is_tracer(key):
        return None
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    with jax.ensure_compile_time_eval():  # a known key is known inside a trace, too
        words = np.asarray(jax.random.key_data(key) if typed else key)
    return int(words[-1]) if words.size == 2 and words[0] == 0 else None


def check_counts(**counts: Any) -> None:
    """Refuse what is not a whole number of at least 1."""
    for name, value in counts.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < 1:
            msg = f"{name}={value!r}; expected a whole number, at least 1."
            raise SpectrumError(msg)
