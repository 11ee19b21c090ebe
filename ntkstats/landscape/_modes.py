"""The gradient and Hessian of many points in coordinates in which the Hessian is diagonal.

Two providers give the same thing: all modes from the dense Hessian, or those of a Krylov space
that holds the gradient and the softest modes known so far. Whatever steps along modes (searches
for saddles, gradient flow) works with either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.landscape._problem import Problem, batched
from ntkstats.typing import Array, PyTree

DENSE_UP_TO = 256
"""Dimension up to which the whole Hessian is diagonalised."""

KRYLOV = 24
"""Dimension of the Krylov space beyond."""

CARRIED = 3
"""Softest modes that one iteration hands to the next, beyond."""

FLAT = 1e12
"""What stands for the curvature along zero modes: declared, or missing from a Krylov space."""

_WARM_UP = 4  # rounds of Krylov modes that start from nothing
_GONE = 1e-8  # share of a vector that counts as rounding once the rest was projected out


class Modes(NamedTuple):
    """Local quadratic model of the loss; lanes last.

    Attributes
    ----------
    energy
        [B].
    gradient
        [d, B], without its part along zero modes.
    values
        Curvatures [k, B], ascending; at the end come those of zero modes, which are huge.
    vectors
        Directions [d, k, B], orthonormal.
    overlap
        Components of the gradient along them [k, B].
    finite
        Whether everything is [B].
    """

    energy: Array
    gradient: Array
    values: Array
    vectors: Array
    overlap: Array
    finite: Array

    def displacement(self, along: Array) -> Array:
        """The vectors [d, B] with these components [k, B]."""
        return jnp.sum(self.vectors * along[None], axis=1)


Provider: TypeAlias = Callable[[Array, Array, PyTree], Modes]
"""``provider(x [d, B], guess [d, c, B], data) -> Modes``."""


def provider(problem: Problem) -> tuple[Provider, int]:
    """How to get modes in this dimension, and how many vectors to carry from one to the next."""
    if problem.dim <= DENSE_UP_TO:
        return _dense(problem), 0
    return _krylov(problem, KRYLOV), CARRIED


def _dense(problem: Problem) -> Provider:
    gradient = jax.value_and_grad(problem.value)

    def one(x: Array, data: PyTree) -> tuple[Array, Array, Array, Array]:
        f, g = gradient(x, data)
        hessian = jax.hessian(problem.value)(x, data)
        if problem.zero_modes is None:
            return f, g, hessian, jnp.zeros_like(hessian)
        flat = orthonormal(problem.zero_modes(x))
        flat = flat @ flat.T
        keep = jnp.eye(problem.dim, dtype=x.dtype) - flat
        return f, keep @ g, keep @ hessian @ keep, flat

    def modes(x: Array, guess: Array, data: PyTree) -> Modes:
        del guess
        f, g, hessian, flat = jax.vmap(one, (-1, None), (0, -1, 0, 0))(x, data)
        finite = jnp.isfinite(f) & jnp.isfinite(g).all(axis=0)
        finite = finite & jnp.isfinite(hessian).all(axis=(1, 2))
        values, vectors = _eigh(hessian, flat, finite)
        vectors = jnp.moveaxis(vectors, 0, -1)
        return Modes(f, g, values.T, vectors, jnp.sum(vectors * g[:, None], axis=0), finite)

    return modes


def _krylov(problem: Problem, size: int) -> Provider:
    gradient = jax.grad(problem.value)

    def product(x: Array, v: Array, data: PyTree) -> Array:
        return jax.jvp(lambda x: gradient(x, data), (x,), (v,))[1]

    products = jax.vmap(product, (-1, -1, None), -1)
    evaluate = batched(problem)

    def modes(x: Array, guess: Array, data: PyTree) -> Modes:
        f, g = evaluate(x, data)
        project = _projector(problem, x)
        g = project(g)
        starts = jnp.concatenate([g[:, None], guess], axis=1)
        width = starts.shape[1]
        empty = jnp.zeros((size, *x.shape), x.dtype)

        def grow(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            basis, images = carry
            fresh = jnp.where(
                j < width,
                starts[:, jnp.minimum(j, width - 1)],
                images[jnp.maximum(j - width, 0)],
            )
            v = _added(basis, project(fresh))
            image = project(products(x, v, data))
            return basis.at[j].set(v), images.at[j].set(image)

        basis, images = jax.lax.fori_loop(0, size, grow, (empty, empty))
        small = jnp.einsum("idb,jdb->bij", basis, images, precision="highest")
        finite = jnp.isfinite(small).all(axis=(1, 2)) & jnp.isfinite(f)
        # Directions that add nothing to the space are zero; they must not pass for flat ones.
        missing = jnp.round(1 - jnp.sum(basis * basis, axis=1))
        values, rotation = _eigh(small, jax.vmap(jnp.diag, -1)(missing), finite)
        vectors = jnp.einsum("idb,bik->dkb", basis, rotation, precision="highest")
        return Modes(f, g, values.T, vectors, jnp.sum(vectors * g[:, None], axis=0), finite)

    return modes


def _eigh(matrix: Array, flat: Array, finite: Array) -> tuple[Array, Array]:
    """Eigenvalues [B, k] and eigenvectors [B, k, k], those in the range of ``flat`` last.

    ``flat`` are projections onto directions in which the matrices are zero. They are lifted just
    above the rest, not to `FLAT` itself, beside which the others would drown in rounding.
    """
    # Solvers may loop forever or return garbage on NaN, so they never see one.
    matrix = jnp.where(finite[:, None, None], 0.5 * (matrix + matrix.mT), 0)
    flat = jnp.where(finite[:, None, None], flat, 0)
    above = 1 + 2 * jnp.sqrt(jnp.sum(matrix * matrix, axis=(1, 2), keepdims=True))
    values, vectors = jnp.linalg.eigh(matrix + above * flat)
    share = jnp.einsum("bij,bjk->bik", flat, vectors, precision="highest")
    return jnp.where(jnp.sum(share * share, axis=1) > 0.5, FLAT, values), vectors


def _projector(problem: Problem, x: Array) -> Callable[[Array], Array]:
    """Takes out of vectors [d, B] what points along zero modes."""
    if problem.zero_modes is None:
        return lambda v: v
    flat = jax.vmap(lambda x: orthonormal(problem.zero_modes(x)), -1, -1)(x)  # type: ignore[misc]
    return lambda v: v - jnp.sum(flat * jnp.sum(flat * v[:, None], axis=0)[None], axis=1)


def _added(basis: Array, v: Array) -> Array:
    """The part [d, B] of v outside the span of ``basis`` [m, d, B], of length one or zero."""
    before = jnp.sqrt(jnp.sum(v * v, axis=0))
    for _ in range(2):
        v = v - jnp.sum(basis * jnp.sum(basis * v, axis=1)[:, None], axis=0)
    norm = jnp.sqrt(jnp.sum(v * v, axis=0))
    new = norm > _GONE * before
    return jnp.where(new, v / jnp.where(new, norm, 1), 0)


def orthonormal(columns: Array) -> Array:
    """Orthonormal columns [d, m] with the same span; zero where a column adds nothing.

    Gram-Schmidt instead of QR: at symmetric points zero modes coincide or vanish, and QR would
    invent directions in their place.
    """
    basis = jnp.zeros_like(columns)
    largest = jnp.max(jnp.linalg.norm(columns, axis=0))
    for j in range(columns.shape[1]):
        v = columns[:, j]
        for _ in range(2):
            v = v - basis @ (basis.T @ v)
        norm = jnp.linalg.norm(v)
        new = norm > _GONE * largest
        basis = basis.at[:, j].set(jnp.where(new, v / jnp.where(new, norm, 1), 0))
    return basis


def softest(problem: Problem, thetas: np.ndarray) -> np.ndarray:
    """The mode of lowest curvature at each point [n, d], largest component positive; under x64."""
    if problem.dim <= DENSE_UP_TO:
        v = np.stack([hessian_modes(problem, theta)[1][:, 0] for theta in thetas])
    else:
        v = _softest_krylov(problem, thetas)
    lead = np.take_along_axis(v, np.abs(v).argmax(axis=1)[:, None], axis=1)
    return v * np.sign(lead)


def hessian_modes(problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of the Hessian at one point [d]; under x64."""
    hessian = _hessian(problem)(jnp.asarray(theta), problem.data_as(np.float64))
    values, vectors = np.linalg.eigh(np.asarray(hessian))
    return values, vectors


@lru_cache(maxsize=32)
def _hessian(problem: Problem) -> Callable[[Array, PyTree], Array]:
    return jax.jit(jax.hessian(problem.value))


@lru_cache(maxsize=32)
def _compiled(problem: Problem) -> tuple[Provider, int]:
    modes, carried = provider(problem)
    return jax.jit(modes), carried


def _softest_krylov(problem: Problem, thetas: np.ndarray) -> np.ndarray:
    modes_at, carried = _compiled(problem)
    x, data = jnp.asarray(thetas.T), problem.data_as(np.float64)
    guess = jax.random.normal(jax.random.key(2), (problem.dim, carried, 1), x.dtype)
    guess = jnp.broadcast_to(guess, (problem.dim, carried, len(thetas)))
    for _ in range(_WARM_UP):
        modes = modes_at(x, guess, data)
        guess = modes.vectors[:, :carried]
    return np.asarray(guess[:, 0]).T
