"""Eigenvalues of a kernel."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import eigh_tridiagonal
from jaxtyping import Float

from ntkstats._compat import is_tracer, x64
from ntkstats.errors import PrecisionError, SpectrumError
from ntkstats.spectrum._checks import as_kernel, in_own_precision
from ntkstats.spectrum._scaling import to_unit_scale
from ntkstats.spectrum._solvers import (
    SOLVERS,
    check_size,
    choose_solver,
    host_callback,
    host_eigenvalues,
    platform_of,
)
from ntkstats.typing import Array, ArrayLike

PRECISIONS = (None, "float32", "float64")


def eigenvalues(
    K: ArrayLike, *, solver: str = "auto", precision: str | None = None
) -> Float[Array, " n"]:
    """Eigenvalues of a symmetric kernel, largest first.

    The symmetric part of ``K`` is used. If any entry is not finite, all eigenvalues are NaN.
    Works under ``jit`` and ``vmap``. Absolute errors are a few eps times the largest eigenvalue,
    so eigenvalues below ``n * eps * lambda_max`` carry no information; ask for float64 when they
    matter (condition number, log-determinant).

    Parameters
    ----------
    K
        Kernel [n, n], float32 or float64.
    solver
        ``"eigh"`` is JAX's symmetric eigensolver, and the one to differentiate. ``"tridiagonal"``
        reduces K to tridiagonal form and bisects, without ever forming eigenvectors: on CPU it
        runs 1.2 to 4 times faster from n = 64 on and takes about a second longer to compile; it
        has not been measured on GPU. ``"host"`` is LAPACK through NumPy, eigenvalues only; inside
        a trace it calls back to the host. ``"auto"`` takes the second on CPU from n = 256 on and
        the first otherwise, up to the sizes where they fail, and the third beyond
        (`choose_solver` tells which).
    precision
        None keeps the precision of ``K``. ``"float64"`` widens a float32 kernel and solves on the
        host (LAPACK), or with the solver that is named; it needs a concrete array. ``"float32"``
        rounds ``K`` first.

    Returns
    -------
    Array
        Eigenvalues [n], descending.

    Raises
    ------
    SpectrumError
        ``K`` is not a square, non-empty matrix of floating-point numbers, there is no such
        solver, or it is known to fail at this size.
    PrecisionError
        float64 was asked for inside a float32 trace, or there is no such precision.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> [round(float(v), 5) for v in eigenvalues(jnp.array([[2.0, 1.0], [1.0, 2.0]]))]
    [3.0, 1.0]
    """
    if solver not in SOLVERS:
        msg = f"solver={solver!r}; expected one of {SOLVERS}."
        raise SpectrumError(msg)
    if precision not in PRECISIONS:
        msg = f"precision={precision!r}; expected one of {PRECISIONS}."
        raise PrecisionError(msg)
    if precision == "float64":
        return _eigenvalues_in_float64(K, solver)
    if precision == "float32":
        return _eigenvalues(as_kernel(K).astype(jnp.float32), solver)
    return _eigenvalues_as_given(K, solver)


@in_own_precision
def _eigenvalues_as_given(K: ArrayLike, solver: str) -> Float[Array, " n"]:
    return _eigenvalues(as_kernel(K), solver)


def _eigenvalues_in_float64(K: ArrayLike, solver: str) -> Float[Array, " n"]:
    if is_tracer(K):
        if K.dtype == np.float64:
            return _eigenvalues(as_kernel(K), solver)
        msg = (
            f"precision='float64' was asked for a {K.dtype} kernel inside a function that JAX is"
            " tracing; a float32 trace cannot be widened from inside. Call eigenvalues outside"
            " jit and vmap, or use precision=None here."
        )
        raise PrecisionError(msg)
    with x64():
        wide = as_kernel(K).astype(jnp.float64)
        return _eigenvalues(wide, "host" if solver == "auto" else solver)


def _eigenvalues(K: Float[Array, "n n"], solver: str) -> Float[Array, " n"]:
    n, platform = K.shape[0], platform_of(K)
    if solver != "auto":
        check_size(solver, n, K.dtype, platform)
    if is_tracer(K):
        return _solve(K, solver=solver)
    if solver == "auto":
        solver = choose_solver(n, K.dtype, platform)
    if solver == "host":  # no callback: it would hold another copy of K
        return jnp.asarray(host_eigenvalues(np.asarray(K)))
    return _solve(K, solver=solver)


@partial(jax.jit, static_argnames="solver")
def _solve(K: Float[Array, "n n"], *, solver: str) -> Float[Array, " n"]:
    """Eigenvalues at unit scale of the symmetric part; NaN when an entry is not finite."""
    finite = jnp.all(jnp.isfinite(K))
    # Solvers may loop forever or return garbage on NaN, so they never see one.
    scaled, exponent = to_unit_scale(jnp.where(finite, K, jnp.zeros_like(K)))
    symmetric = 0.5 * (scaled + scaled.T)
    values = _automatic(symmetric) if solver == "auto" else _ROUTES[solver](symmetric)
    descending = jnp.sort(values, descending=True)
    return jnp.where(finite, jnp.ldexp(descending, exponent), jnp.nan)


def _automatic(K: Float[Array, "n n"]) -> Float[Array, " n"]:
    """The solver of the platform that the trace is compiled for, which nobody knows yet."""
    platforms = ("cpu", "cuda", "rocm", "tpu")
    chosen = {name: choose_solver(K.shape[0], K.dtype, name) for name in platforms}
    if len(set(chosen.values())) == 1:
        return _ROUTES[chosen["cpu"]](K)
    default = _ROUTES[chosen.pop("tpu")]
    routes = {name: _ROUTES[solver] for name, solver in chosen.items()}
    return jax.lax.platform_dependent(K, default=default, **routes)


def _tridiagonal(K: Float[Array, "n n"]) -> Float[Array, " n"]:
    _, diagonal, off_diagonal, _ = jax.lax.linalg.tridiagonal(K)
    return eigh_tridiagonal(diagonal, off_diagonal, eigvals_only=True)


def _eigh(K: Float[Array, "n n"]) -> Float[Array, " n"]:
    return jnp.linalg.eigvalsh(K)


_ROUTES = {"tridiagonal": _tridiagonal, "eigh": _eigh, "host": host_callback}
