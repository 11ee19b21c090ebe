"""Rényi-2 entropy and participation ratio: flatness without eigenvalues."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from ntkstats.spectrum._checks import as_kernel, as_real, as_vector, in_own_precision
from ntkstats.spectrum._scaling import to_unit_scale
from ntkstats.typing import Array, ArrayLike


@in_own_precision
def participation_ratio(kernel_or_eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Participation ratio ``(Tr K)^2 / Tr K^2``: how many eigenvalues share the trace.

    From a kernel it costs n^2 operations and no eigenvalues. Invariant to scale.

    Parameters
    ----------
    kernel_or_eigenvalues
        Kernel [n, n], of which the symmetric part is used, or its eigenvalues [n].

    Returns
    -------
    Array
        A pure number, between 1 and n for a Gram matrix, a scalar; NaN for a zero kernel.

    Raises
    ------
    SpectrumError
        Neither a square kernel nor a vector.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(participation_ratio(jnp.eye(4))), 4)
    4.0
    """
    values = as_real(kernel_or_eigenvalues, "kernel_or_eigenvalues")
    if values.ndim == 1:
        scaled, _ = to_unit_scale(as_vector(values))
        return jnp.sum(scaled) ** 2 / jnp.sum(scaled**2)
    scaled, _ = to_unit_scale(as_kernel(values))
    symmetric = 0.5 * (scaled + scaled.T)
    return jnp.trace(symmetric) ** 2 / jnp.sum(symmetric**2)


@in_own_precision
def renyi2_entropy(kernel_or_eigenvalues: ArrayLike) -> Float[Array, ""]:
    """Rényi entropy of order 2, ``2 ln Tr K - ln |K|_F^2``, in nats.

    A lower bound of the von Neumann entropy that needs no eigenvalues.

    Parameters
    ----------
    kernel_or_eigenvalues
        Kernel [n, n], of which the symmetric part is used, or its eigenvalues [n].

    Returns
    -------
    Array
        Entropy in nats, a scalar; NaN for a zero kernel.

    Raises
    ------
    SpectrumError
        Neither a square kernel nor a vector.

    References
    ----------
    Rényi 1961, "On measures of entropy and information".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(renyi2_entropy(jnp.array([1.0, 1.0, 0.0]))), 4)  # ln 2
    0.6931
    """
    return jnp.log(participation_ratio(kernel_or_eigenvalues))
