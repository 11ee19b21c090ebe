"""Von Neumann entropy of a spectrum and what follows from it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntkstats.errors import SpectrumError
from ntkstats.spectrum._checks import as_vector, in_own_precision
from ntkstats.spectrum._conventions import Convention, as_convention
from ntkstats.typing import Array, ArrayLike


@in_own_precision
def spectral_distribution(
    eigenvalues: ArrayLike, *, n: int | None = None, convention: str | Convention = "ntkstats"
) -> Float[Array, " n"]:
    """Eigenvalues as probabilities, ``p_i = lambda_i / sum lambda``.

    By default eigenvalues below ``n * eps * lambda_max`` (rounding error, negative ones among
    them) count as zero and the sum runs over what is left, so the probabilities add up to one.
    What was negative is reported by `negative_mass`.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.
    n
        Size of the kernel if it is larger than the number of eigenvalues given (those of the
        dual kernel, say): the missing ones are zeros. By default all are given.
    convention
        How small eigenvalues are treated; a name in `CONVENTIONS` or a `Convention`.

    Returns
    -------
    Array
        Probabilities [n]; all NaN if no eigenvalue is positive.

    Raises
    ------
    SpectrumError
        ``eigenvalues`` is not a non-empty vector, ``n`` is too small, or there is no such
        convention.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> [round(float(p), 4) for p in spectral_distribution(jnp.array([3.0, 1.0, -1e-9]))]
    [0.75, 0.25, 0.0]
    """
    rule = as_convention(convention)
    values = _padded(as_vector(eigenvalues), n)
    if rule.before:
        return _normalised(_clipped(values, rule))
    return _clipped(_normalised(values), rule)


@in_own_precision
def von_neumann_entropy(
    eigenvalues: ArrayLike, *, n: int | None = None, convention: str | Convention = "ntkstats"
) -> Float[Array, ""]:
    """Von Neumann entropy ``S = -sum p ln p`` of a spectrum, in nats.

    Invariant to the scale of the kernel under the default convention. A kernel without positive
    eigenvalues gives NaN.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.
    n
        Size of the kernel if not all eigenvalues are given; the missing ones are zeros.
    convention
        How small eigenvalues are treated; the result is in nats under every convention.

    Returns
    -------
    Array
        Entropy in nats, a scalar between 0 and ``ln n``.

    Raises
    ------
    SpectrumError
        As for `spectral_distribution`.

    References
    ----------
    von Neumann 1932, "Mathematische Grundlagen der Quantenmechanik"; Roy and Vetterli 2007,
    "The effective rank: a measure of effective dimensionality".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(von_neumann_entropy(jnp.array([1e-12, 1e-12, 0.0]))), 4)  # ln 2
    0.6931
    """
    p = spectral_distribution(eigenvalues, n=n, convention=convention)
    return shannon_entropy(p)


@in_own_precision
def effective_entropy(
    eigenvalues: ArrayLike, *, n: int | None = None, convention: str | Convention = "ntkstats"
) -> Float[Array, ""]:
    """Effective (normalised) entropy ``S / ln n``, between 0 and 1.

    Compare it only between kernels of one size: it depends on ``n``. NaN at ``n = 1``.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.
    n
        Size of the kernel if not all eigenvalues are given; the missing ones are zeros.
    convention
        How small eigenvalues are treated.

    Returns
    -------
    Array
        A pure number, a scalar.

    Raises
    ------
    SpectrumError
        As for `spectral_distribution`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(effective_entropy(jnp.ones(7))), 4)
    1.0
    """
    p = spectral_distribution(eigenvalues, n=n, convention=convention)
    return shannon_entropy(p) / jnp.log(jnp.asarray(p.shape[0], p.dtype))


@in_own_precision
def entropy(
    eigenvalues: ArrayLike, *, n: int | None = None, convention: str | Convention = "ntkstats"
) -> Float[Array, ""]:
    """Entropy as the convention's source reports it: in nats, or divided by ``ln n``.

    Use it to reproduce published numbers; `von_neumann_entropy` and `effective_entropy` say which
    of the two they give.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.
    n
        Size of the kernel if not all eigenvalues are given; the missing ones are zeros.
    convention
        Whose entropy: a name in `CONVENTIONS` or a `Convention`.

    Returns
    -------
    Array
        Nats, or a pure number if ``divided_by_log_n``, a scalar.

    Raises
    ------
    SpectrumError
        As for `spectral_distribution`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(entropy(jnp.ones(7), convention="znnl")), 4)
    1.0
    """
    rule = as_convention(convention)
    measure = effective_entropy if rule.divided_by_log_n else von_neumann_entropy
    return measure(eigenvalues, n=n, convention=rule)


@in_own_precision
def effective_rank(
    eigenvalues: ArrayLike, *, convention: str | Convention = "ntkstats"
) -> Float[Array, ""]:
    """Effective rank ``exp S``: how many equal eigenvalues would have this entropy.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.
    convention
        How small eigenvalues are treated.

    Returns
    -------
    Array
        A pure number between 1 and n, a scalar; NaN if no eigenvalue is positive.

    Raises
    ------
    SpectrumError
        As for `spectral_distribution`.

    References
    ----------
    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(effective_rank(jnp.array([2.0, 2.0, 2.0, 0.0]))), 4)
    3.0
    """
    return jnp.exp(von_neumann_entropy(eigenvalues, convention=convention))


@in_own_precision
def negative_mass(eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Share of the spectrum that is negative, ``sum |lambda < 0| / sum |lambda|``.

    Zero for an exact Gram matrix, about eps for a computed one; more says that the kernel is not
    one, or that its precision does not suffice.

    Parameters
    ----------
    eigenvalues
        Spectrum [n], in any order.

    Returns
    -------
    Array
        A pure number between 0 and 1, a scalar; NaN for a zero spectrum.

    Raises
    ------
    SpectrumError
        ``eigenvalues`` is not a non-empty vector.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(negative_mass(jnp.array([3.0, -1.0]))), 4)
    0.25
    """
    values = as_vector(eigenvalues)
    share = jnp.abs(values) / jnp.max(jnp.abs(values))
    return jnp.sum(jnp.where(values < 0, share, 0)) / jnp.sum(share)


def shannon_entropy(p: Float[Array, " n"]) -> Float[Array, ""]:
    """``-sum p ln p`` with ``0 ln 0 = 0``; NaN stays NaN."""
    zero = p == 0
    return jnp.sum(jnp.where(zero, 0, -p * jnp.log(jnp.where(zero, 1, p))))


def _padded(values: Float[Array, " k"], n: int | None) -> Float[Array, " n"]:
    if n is None or n == values.shape[0]:
        return values
    if n < values.shape[0]:
        msg = (
            f"n={n} with {values.shape[0]} eigenvalues; expected n to be the size of the kernel,"
            " which has at least as many. Leave n out if all eigenvalues are given."
        )
        raise SpectrumError(msg)
    return jnp.concatenate([values, jnp.zeros(n - values.shape[0], values.dtype)])


def _clipped(values: Float[Array, " n"], rule: Convention) -> Float[Array, " n"]:
    limit = jnp.asarray(rule.clip, values.dtype)
    if rule.relative:
        unit = values.shape[0] * np.finfo(values.dtype).eps
        limit = limit * unit * jnp.maximum(jnp.max(values), 0)
    if rule.floors:
        return jnp.maximum(values, limit)
    # "<=" also drops everything of a spectrum without positive eigenvalues, whose limit is 0;
    # NaN is neither above nor below and stays.
    return jnp.where(values <= limit, 0, values)


def _normalised(values: Float[Array, " n"]) -> Float[Array, " n"]:
    relative = values / jnp.max(values)  # so that the sum cannot overflow
    return relative / jnp.sum(relative)
