"""Curvature of large losses from products with the Hessian."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64_enabled
from ntkstats.landscape._problem import Problem
from ntkstats.landscape._search import check_count
from ntkstats.landscape._trained import _vector
from ntkstats.spectrum import TopEigenvalues, top_eigenvalues
from ntkstats.typing import Array, ArrayLike


class HessianOperator:
    """The Hessian at a point, as products with vectors; nothing of size d squared is formed.

    Parameters
    ----------
    problem
        The loss.
    theta
        The point [d]; its precision is that of the products.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats.landscape import xor_network
    >>> H = HessianOperator(xor_network(2, 1e-2), jnp.zeros(12))
    >>> H.shape, round(float((H @ jnp.eye(12))[0, 0]), 6)
    ((12, 12), 0.02)
    """

    def __init__(self, problem: Problem, theta: np.ndarray | Array) -> None:
        theta = np.asarray(theta)
        _vector(problem, theta, "theta")
        kind = np.float64 if theta.dtype == np.float64 and x64_enabled() else np.float32
        self._theta = jnp.asarray(theta, kind)
        self._data = problem.data_as(kind)
        self.shape = (problem.dim, problem.dim)
        self.dtype: Any = np.dtype(kind)

        def product(theta: Array, v: Array, data: object) -> Array:
            gradient = jax.grad(problem.value)
            return jax.jvp(lambda theta: gradient(theta, data), (theta,), (v,))[1]

        self._products = jax.jit(jax.vmap(product, (None, 1, None), 1))

    def __matmul__(self, v: ArrayLike) -> Array:
        """``H V`` for V [d, k]."""
        return self._products(self._theta, jnp.asarray(v, self.dtype), self._data)


def sharpness(
    problem: Problem, theta: np.ndarray, *, key: Array, k: int = 1, depth: int = 12
) -> TopEigenvalues:
    """The largest eigenvalues of the Hessian, with error bounds.

    Parameters
    ----------
    problem
        The loss.
    theta
        The point [d].
    key
        PRNG key of the block to start from.
    k
        How many.
    depth
        Blocks in the Krylov space, as for
        [`top_eigenvalues`][ntkstats.spectrum.top_eigenvalues].

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntkstats.landscape import xor_network
    >>> top = sharpness(xor_network(2, 1e-2), np.zeros(12), key=jax.random.key(0))
    >>> round(float(top.values[0]), 5)
    0.52
    """
    return top_eigenvalues(HessianOperator(problem, theta), k, key=key, depth=depth)


class Density(NamedTuple):
    """A smoothed spectral density of the Hessian.

    Attributes
    ----------
    value
        Where [n].
    density
        Mean over the random vectors [n]; integrates to 1.
    stderr
        Standard error over the random vectors [n].
    trace
        Estimate of the trace of the Hessian.
    trace_stderr
        Its standard error.
    """

    value: np.ndarray
    density: np.ndarray
    stderr: np.ndarray
    trace: float
    trace_stderr: float


def hessian_density(
    problem: Problem,
    theta: np.ndarray,
    *,
    key: Array,
    vectors: int = 8,
    depth: int = 40,
    width: float = 0.01,
    points: int = 400,
) -> Density:
    """Spectral density of the Hessian by stochastic Lanczos quadrature.

    Parameters
    ----------
    problem
        The loss.
    theta
        The point [d].
    key
        PRNG key of the random vectors.
    vectors
        How many; at least 2, for the standard error.
    depth
        Lanczos steps of each, with full re-orthogonalisation; at most d.
    width
        Standard deviation of the Gaussian that smooths, as a share of the spectral range.
    points
        Where the density is evaluated.

    References
    ----------
    Ghorbani, Krishnan and Xiao 2019, "An investigation into neural net optimization via Hessian
    eigenvalue density"; Ubaru, Chen and Saad 2017.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntkstats.landscape import xor_network
    >>> density = hessian_density(xor_network(2, 1e-2), np.zeros(12), key=jax.random.key(0))
    >>> round(float(np.trapezoid(density.density, density.value)), 2)
    1.0
    """
    for name, value in (("vectors", vectors), ("depth", depth), ("points", points)):
        check_count(name, value)
    operator = HessianOperator(problem, theta)
    d = problem.dim
    depth = min(depth, d)
    start = jax.random.normal(key, (vectors, d), operator.dtype)
    nodes, weights = [], []
    for v in start:
        alpha, beta = _lanczos(operator, np.asarray(v / jnp.linalg.norm(v)), depth)
        values, rotation = np.linalg.eigh(np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1))
        nodes.append(values)
        weights.append(rotation[0] ** 2)
    low, high = min(n.min() for n in nodes), max(n.max() for n in nodes)
    sigma = width * (high - low or 1.0)
    grid = np.linspace(low - 6 * sigma, high + 6 * sigma, points)
    each = np.stack(
        [
            (w * np.exp(-0.5 * ((grid[:, None] - n) / sigma) ** 2)).sum(axis=1)
            for n, w in zip(nodes, weights, strict=True)
        ]
    ) / (sigma * np.sqrt(2 * np.pi))
    traces = d * np.array([(w * n).sum() for n, w in zip(nodes, weights, strict=True)])
    spread = max(vectors - 1, 1) * vectors
    error = np.sqrt(((each - each.mean(axis=0)) ** 2).sum(axis=0) / spread)
    trace_error = float(np.sqrt(((traces - traces.mean()) ** 2).sum() / spread))
    return Density(grid, each.mean(axis=0), error, float(traces.mean()), trace_error)


def _lanczos(operator: HessianOperator, v: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and off-diagonal of the tridiagonal matrix; shorter if the space is exhausted."""
    basis = [v.astype(np.float64)]
    alpha, beta = [], []
    for j in range(depth):
        w = np.asarray(operator @ basis[-1][:, None], np.float64)[:, 0]
        alpha.append(float(basis[-1] @ w))
        largest = max(abs(a) for a in alpha)
        span = np.array(basis)
        for _ in range(2):
            w = w - span.T @ (span @ w)
        norm = float(np.linalg.norm(w))
        # What is left of an exhausted space is rounding of the products.
        if j == depth - 1 or norm <= 10 * float(np.finfo(operator.dtype).eps) * largest:
            break
        beta.append(norm)
        basis.append(w / norm)
    return np.array(alpha), np.array(beta)
