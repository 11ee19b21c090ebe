"""Which eigensolver a kernel of a given size can have, and the one that runs on the host."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntkstats._compat import is_tracer
from ntkstats.errors import SpectrumError
from ntkstats.typing import Array

SOLVERS = ("auto", "tridiagonal", "eigh", "host")
GPUS = ("gpu", "cuda", "rocm")

TRIDIAGONAL_FROM = 256
"""Size from which ``"auto"`` is worth the longer compilation of the tridiagonal route (CPU)."""

INT32 = 2**31 - 1

LAPACK_VECTORS_UP_TO = 32766
"""LAPACK's solver with eigenvectors asks for 1 + 6 n + 2 n^2 words of workspace and counts them in
32 bits: from n = 32767 on the count wraps around, and JAX (issue 10420) returns NaN. JAX has no
other ``eigh`` on CPU: it always computes the vectors, wanted or not."""

INDEXED_UP_TO = 46340
"""Beyond it n * n does not fit 32 bits, in which jaxlib steps through matrices (``sytrd``)."""


def choose_solver(n: int, dtype: Any, platform: str) -> str:
    """Solver that ``eigenvalues(K, solver="auto")`` takes.

    Known limits are respected: from n = 32767 on LAPACK's 32-bit workspace on CPU (JAX issue
    10420), and on GPU 2^31 bytes for the matrix, n > 23170 in float32 and n > 16383 in float64
    (JAX issue 33062). Beyond them, and beyond n = 46340 everywhere but on TPU, LAPACK on the host
    computes eigenvalues only, with workspace linear in n and 64-bit indices.

    The limits on GPU come from JAX's source and issues, not from a measurement here.

    Parameters
    ----------
    n
        Size of the kernel.
    dtype
        float32 or float64.
    platform
        Where the kernel lies: ``"cpu"``, ``"gpu"`` (or ``"cuda"``, ``"rocm"``), ``"tpu"``, ...

    Returns
    -------
    str
        ``"eigh"``, ``"tridiagonal"`` or ``"host"``.

    Examples
    --------
    >>> choose_solver(1000, "float32", "gpu")
    'eigh'
    >>> choose_solver(30_000, "float32", "gpu")
    'host'
    """
    wanted = "tridiagonal" if platform == "cpu" and n >= TRIDIAGONAL_FROM else "eigh"
    limit = largest_size(wanted, dtype, platform)
    return wanted if limit is None or n <= limit else "host"


def largest_size(solver: str, dtype: Any, platform: str) -> int | None:
    """Largest n for which the solver is right on this platform, None if only memory limits it."""
    if solver == "tridiagonal" and platform in ("cpu", *GPUS):
        return INDEXED_UP_TO
    if solver == "eigh" and platform == "cpu":
        return LAPACK_VECTORS_UP_TO
    if solver == "eigh" and platform in GPUS:
        # jaxlib divides 2^31 by the bytes of one matrix to size its batches, and gets zero.
        return math.isqrt(INT32 // np.dtype(dtype).itemsize)
    return None


def check_size(solver: str, n: int, dtype: Any, platform: str) -> None:
    """Refuse a solver that was asked for beyond its limit."""
    limit = largest_size(solver, dtype, platform)
    if limit is not None and n > limit:
        msg = (
            f"solver={solver!r} was given for a {np.dtype(dtype).name} kernel with n={n} on"
            f" {platform}; expected n <= {limit}, where its 32-bit sizes overflow. Use"
            f" solver='auto' or 'host', or top_eigenvalues and entropy_estimate, which need a few"
            " hundred products with K."
        )
        raise SpectrumError(msg)


def platform_of(K: Array) -> str:
    """Where an array lies; for a tracer, which does not know yet, the default backend."""
    if is_tracer(K):
        return jax.default_backend()
    return next(iter(K.devices())).platform


def host_eigenvalues(K: np.ndarray) -> np.ndarray:
    """Eigenvalues [..., n], descending, of the symmetric part of K [..., n, n] by LAPACK.

    NaN when an entry is not finite. Runs at unit scale, so that a power of two in K comes out
    exactly. Holds two arrays of the size of K besides it.
    """
    # Largest absolute entry without an array of absolute values; a NaN anywhere comes through.
    largest = np.maximum(K.max(axis=(-2, -1)), -K.min(axis=(-2, -1)))
    finite = np.isfinite(largest)
    if not finite.all():
        K = np.where(finite[..., None, None], K, 0)
    _, exponent = np.frexp(np.where(finite, largest, 0))
    matrix = np.ldexp(K, -exponent[..., None, None] - 1)
    matrix += np.swapaxes(matrix, -2, -1)
    # NumPy's eigvalsh is LAPACK's syevd told to compute no eigenvectors, which needs workspace
    # linear in n: with them (eigh) it needs 2 n^2, counted in 32 bits. SciPy's drivers agree
    # within rounding, but its wheels index in 32 bits where NumPy's use 64.
    values = np.ldexp(np.linalg.eigvalsh(matrix)[..., ::-1], exponent[..., None])
    return np.where(finite[..., None], values, np.nan).astype(K.dtype)


def host_callback(K: Float[Array, "n n"]) -> Float[Array, " n"]:
    """`host_eigenvalues` of an array that is being traced."""
    if K.dtype == np.float32:
        shape = jax.ShapeDtypeStruct(K.shape[:1], K.dtype)
        return jax.pure_callback(_from_jax, shape, K, vmap_method="broadcast_all")
    # Callbacks may run in a thread that is not in the x64 mode of the caller, where JAX would
    # round float64 to float32 on the way in; bits come through.
    bits = jax.lax.bitcast_convert_type(K, jnp.uint32)
    shape = jax.ShapeDtypeStruct((K.shape[0], 2), bits.dtype)
    found = jax.pure_callback(_from_bits, shape, bits, vmap_method="broadcast_all")
    return jax.lax.bitcast_convert_type(found, K.dtype)


def _from_jax(K: Any) -> np.ndarray:
    return host_eigenvalues(np.asarray(K))


def _from_bits(bits: Any) -> np.ndarray:
    values = host_eigenvalues(np.ascontiguousarray(bits).view(np.float64)[..., 0])
    return np.ascontiguousarray(values[..., None]).view(np.uint32)
