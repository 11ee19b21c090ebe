"""Ranks, conditioning and determinants read off a spectrum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntkstats.errors import SpectrumError
from ntkstats.spectrum._checks import as_kernel, as_real, as_vector, in_own_precision
from ntkstats.typing import Array, ArrayLike


@in_own_precision
def stable_rank(eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Stable (intrinsic) rank ``Tr K / lambda_max``.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.

    Returns
    -------
    Array
        A pure number between 1 and n for a Gram matrix, a scalar; NaN if no eigenvalue is
        positive.

    Raises
    ------
    SpectrumError
        ``eigenvalues`` is not a non-empty vector.

    References
    ----------
    Tropp 2015, "An introduction to matrix concentration inequalities".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(stable_rank(jnp.array([4.0, 1.0, 1.0]))), 4)
    1.5
    """
    values = as_vector(eigenvalues)
    return jnp.sum(values / _largest_positive(values))


@in_own_precision
def condition_number(eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Condition number ``lambda_max / lambda_min``.

    Infinite when the smallest eigenvalue lies below ``n * eps * lambda_max``, where it cannot be
    told from zero; float64 then sees further.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.

    Returns
    -------
    Array
        A pure number of at least 1, a scalar; NaN if no eigenvalue is positive.

    Raises
    ------
    SpectrumError
        ``eigenvalues`` is not a non-empty vector.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(condition_number(jnp.array([8.0, 2.0]))), 4)
    4.0
    """
    values = as_vector(eigenvalues)
    return 1 / jnp.min(_resolved(values) / _largest_positive(values))


@in_own_precision
def log_determinant(eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Log-determinant ``ln det K = sum ln lambda``.

    Equal to ``n ln(Tr K / n) - n * uniform_divergence``: the scale and the flatness of the
    spectrum, separated. Minus infinity when an eigenvalue lies below ``n * eps * lambda_max``,
    where it cannot be told from zero.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.

    Returns
    -------
    Array
        Natural logarithm, a scalar; NaN if no eigenvalue is positive.

    Raises
    ------
    SpectrumError
        ``eigenvalues`` is not a non-empty vector.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(log_determinant(jnp.array([4.0, 0.25]))), 4)
    0.0
    """
    values = as_vector(eigenvalues)
    largest = _largest_positive(values)
    # Relative to the largest, so that very small and very large kernels do not leave the range.
    return jnp.sum(jnp.log(_resolved(values) / largest)) + values.shape[0] * jnp.log(largest)


@in_own_precision
def uniform_divergence(eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Distance from a flat spectrum: KL divergence of ``p = lambda / sum lambda`` from uniform.

    ``KL(uniform | p) = -ln n - (1/n) sum ln p``, in nats.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.

    Returns
    -------
    Array
        Divergence in nats, a scalar: 0 for a flat spectrum, infinite when an eigenvalue cannot
        be told from zero, NaN if none is positive.

    Raises
    ------
    SpectrumError
        ``eigenvalues`` is not a non-empty vector.

    References
    ----------
    Kullback and Leibler 1951, "On information and sufficiency".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> abs(round(float(uniform_divergence(jnp.full(5, 3.0))), 4))
    0.0
    """
    values = as_vector(eigenvalues)
    relative = _resolved(values) / _largest_positive(values)
    return jnp.log(jnp.mean(relative)) - jnp.mean(jnp.log(relative))


@in_own_precision
def mean_diagonal(kernel_or_eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Mean diagonal entry ``Tr K / n``, which is also the mean eigenvalue.

    Parameters
    ----------
    kernel_or_eigenvalues
        Kernel [n, n], or its diagonal or its eigenvalues [n].

    Returns
    -------
    Array
        In the units of the kernel, a scalar.

    Raises
    ------
    SpectrumError
        Neither a square kernel nor a vector.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(mean_diagonal(jnp.diag(jnp.array([1.0, 3.0]))))
    2.0
    """
    values = as_real(kernel_or_eigenvalues, "kernel_or_eigenvalues")
    if values.ndim == 1:
        return jnp.mean(as_vector(values))
    return jnp.mean(jnp.diagonal(as_kernel(values)))


@in_own_precision
def top_k(eigenvalues: ArrayLike, k: int) -> Float[Array, " k"]:
    """Give the ``k`` largest eigenvalues, descending.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.
    k
        How many, 1 to n.

    Returns
    -------
    Array
        Eigenvalues [k].

    Raises
    ------
    SpectrumError
        ``eigenvalues`` is not a non-empty vector, or ``k`` is out of range.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> top_k(jnp.array([1.0, 5.0, 3.0]), 2).tolist()
    [5.0, 3.0]
    """
    values = as_vector(eigenvalues)
    if not 1 <= k <= values.shape[0]:
        msg = (
            f"k={k} with {values.shape[0]} eigenvalues; expected 1 <= k <= {values.shape[0]}."
            " Ask for fewer, or measure on a larger probe."
        )
        raise SpectrumError(msg)
    return jax.lax.top_k(values, k)[0]


def _largest_positive(values: Float[Array, " n"]) -> Float[Array, ""]:
    """Give the largest eigenvalue, NaN if it is not positive."""
    largest = jnp.max(values)
    return jnp.where(largest <= 0, jnp.nan, largest)


def _resolved(values: Float[Array, " n"]) -> Float[Array, " n"]:
    """Eigenvalues with those below rounding error set to zero."""
    limit = values.shape[0] * np.finfo(values.dtype).eps * jnp.max(values)
    return jnp.where(values < limit, 0, values)
