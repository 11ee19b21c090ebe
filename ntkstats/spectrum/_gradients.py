"""Directions and norms of per-sample gradients, read off their Gram matrix."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from ntkstats.spectrum._checks import as_kernel, as_vector, in_own_precision
from ntkstats.spectrum._conventions import Convention
from ntkstats.spectrum._eigenvalues import eigenvalues
from ntkstats.spectrum._entropy import shannon_entropy, von_neumann_entropy
from ntkstats.typing import Array, ArrayLike


@in_own_precision
def cosine_kernel(K: ArrayLike) -> Float[Array, "n n"]:
    """Cosines between gradients, ``K_ij / sqrt(K_ii K_jj)``.

    Rows and columns of samples without gradient (``K_ii <= 0``) are zero.

    Parameters
    ----------
    K
        Kernel [n, n].

    Returns
    -------
    Array
        Cosines [n, n] with ones (or zeros) on the diagonal.

    Raises
    ------
    SpectrumError
        ``K`` is not a square kernel.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> cosine_kernel(jnp.array([[4.0, 3.0], [3.0, 9.0]])).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    matrix = as_kernel(K)
    diagonal = jnp.diagonal(matrix)
    absent = diagonal <= 0
    # Two divisions by norms, because the product of two diagonal entries may overflow.
    norms = jnp.sqrt(jnp.where(absent, 1, diagonal))
    cosines = matrix / norms[:, None] / norms[None, :]
    cosines = jnp.where(absent[:, None] | absent[None, :], 0, cosines)
    ones = jnp.where(absent, 0, diagonal / diagonal)  # NaN where the kernel is not finite
    return jnp.where(jnp.eye(matrix.shape[0], dtype=bool), ones[:, None], cosines)


@in_own_precision
def covariance_entropy(
    K: ArrayLike, *, solver: str = "auto", convention: str | Convention = "ntkstats"
) -> Float[Array, ""]:
    """Covariance entropy: von Neumann entropy of the cosines between gradients, in nats.

    Blind to gradient norms; `self_entropy` sees only them.

    Parameters
    ----------
    K
        Kernel [n, n].
    solver
        As for `eigenvalues`.
    convention
        How small eigenvalues are treated; the result is in nats under every convention.

    Returns
    -------
    Array
        Entropy in nats, a scalar; NaN if every gradient vanishes.

    Raises
    ------
    SpectrumError
        ``K`` is not a square kernel, or there is no such solver or convention.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(covariance_entropy(jnp.diag(jnp.array([1.0, 1e4])))), 4)  # ln 2
    0.6931
    """
    return von_neumann_entropy(eigenvalues(cosine_kernel(K), solver=solver), convention=convention)


@in_own_precision
def self_entropy(diagonal: ArrayLike) -> Float[Array, ""]:
    """Self entropy ``-sum q ln q`` of gradient norms, ``q_i = sqrt(K_ii) / sum sqrt(K_jj)``.

    Parameters
    ----------
    diagonal
        Diagonal of the kernel [n]: squared gradient norms.

    Returns
    -------
    Array
        Entropy in nats, a scalar between 0 and ``ln n``. NaN if all entries vanish or one is
        negative, which the diagonal of a Gram matrix never is.

    Raises
    ------
    SpectrumError
        ``diagonal`` is not a non-empty vector.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(self_entropy(jnp.array([9.0, 9.0, 0.0]))), 4)  # ln 2
    0.6931
    """
    norms = jnp.sqrt(as_vector(diagonal, "diagonal"))
    return shannon_entropy(norms / jnp.sum(norms))
