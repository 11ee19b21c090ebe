"""The largest eigenvalues of a kernel that is too large for all of them."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ntkstats.errors import SpectrumError
from ntkstats.spectrum._checks import in_own_precision
from ntkstats.spectrum._krylov import Basis, empty_basis, grow, ritz
from ntkstats.spectrum._operators import (
    as_operator,
    check_counts,
    check_key,
    seed_of,
    stored_product,
)
from ntkstats.typing import Array

BLOCK = 8
"""Smallest default width of a block."""


class TopEigenvalues(NamedTuple):
    """The largest eigenvalues, each with a bound on its error.

    Attributes
    ----------
    values
        Ritz values [k], descending. The j-th never exceeds the j-th eigenvalue (up to rounding).
    residuals
        Bounds [k], in the units of K: within ``residuals[j]`` of ``values[j]`` lies an eigenvalue.
    method
        How they were obtained.
    cost
        Products of K with a vector.
    seed
        Seed of the key, None if it was not made by ``jax.random.key(seed)`` or is traced.
    """

    values: Array
    residuals: Array
    method: str
    cost: int
    seed: int | None


@in_own_precision
def top_eigenvalues(
    K: Any,
    k: int,
    *,
    key: Array | None = None,
    block: int | None = None,
    depth: int = 12,
) -> TopEigenvalues:
    """Give the ``k`` largest eigenvalues of a kernel from products with it, and error bounds.

    A block Krylov space (block Lanczos with full re-orthogonalisation and all images kept), then
    Rayleigh-Ritz. The residual ``|K v - theta v|`` of a Ritz vector of length one bounds the
    distance to the nearest eigenvalue of a symmetric K, whether or not the iteration converged;
    ``sqrt(n) eps |K|`` is added for the rounding of the products. Where residuals are too
    large, raise ``depth``.

    K is only ever multiplied: a stored kernel may be spread over devices by rows and stays there.
    Only matrix products of full precision are used (no TF32).

    Parameters
    ----------
    K
        Kernel [n, n] or anything square with ``shape``, ``dtype`` and ``@`` (or ``matvec``), such
        as an [`NTKOperator`][ntkstats.kernels.NTKOperator]. Must be symmetric: of a kernel that is
        not, `eigenvalues` would take the symmetric part.
    k
        How many, 1 to n.
    key
        PRNG key of the block to start from.
    block
        Width of a block; at least the largest multiplicity expected among the eigenvalues asked
        for (the number of classes, for class-structured spectra), or copies may be missed. By
        default the larger of k and 8.
    depth
        Blocks in the Krylov space. Beyond ``block * depth = n`` the space is everything: n
        products, and the eigenvalues are those of a full solve.

    Returns
    -------
    TopEigenvalues
        ``values`` and ``residuals`` [k], method, cost in products, seed. Under ``jit`` return its
        ``values`` and ``residuals``.

    Raises
    ------
    SpectrumError
        K is not a square kernel or operator, ``k`` is out of range, the key is missing, or
        ``block`` and ``depth`` are not positive whole numbers that leave room for k vectors.

    Notes
    -----
    Lanczos in the matfree package goes one vector at a time and finds one copy of a repeated
    eigenvalue, and it is not typed; the block version here is our own.

    References
    ----------
    Golub and Underwood 1977, "The block Lanczos method for computing eigenvalues"; Parlett 1980,
    "The symmetric eigenvalue problem" (residual bounds).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> K = jnp.diag(200 / jnp.arange(1.0, 201.0))
    >>> top = top_eigenvalues(K, 2, key=jax.random.key(0))
    >>> [round(float(v), 2) for v in top.values], bool((top.residuals < 0.01).all()), top.cost
    ([200.0, 100.0], True, 96)
    """
    operator = as_operator(K)
    n = operator.n
    check_counts(k=k, depth=depth, **({} if block is None else {"block": block}))
    if k > n:
        msg = (
            f"k={k} with a kernel of size {n}; expected 1 <= k <= {n}. Ask for fewer, or measure"
            " on a larger probe."
        )
        raise SpectrumError(msg)
    start_key = check_key(key)
    width = min(max(k, BLOCK) if block is None else int(block), n)
    size = width * depth
    if k > size:
        msg = (
            f"k={k} with block={width} and depth={depth}, a space of {size} dimensions; expected"
            " block * depth >= k, and a few times k to converge. Raise depth or block."
        )
        raise SpectrumError(msg)
    if operator.matrix is not None:
        values, residuals = _of_stored(operator.matrix, start_key, k=k, width=width, depth=depth)
    else:
        assert operator.product is not None
        basis = _krylov(
            operator.product, n, operator.dtype, start_key, width=width, depth=depth, unroll=True
        )
        values, residuals = _largest(basis, k)
    method = f"block Krylov space of {depth} x {width} vectors" if size < n else "full space"
    return TopEigenvalues(values, residuals, method, min(size, n), seed_of(start_key))


@partial(jax.jit, static_argnames=("k", "width", "depth"))
def _of_stored(
    K: Float[Array, "n n"], key: Array, *, k: int, width: int, depth: int
) -> tuple[Array, Array]:
    product, exponent = stored_product(K)
    basis = _krylov(product, K.shape[0], K.dtype, key, width=width, depth=depth, unroll=False)
    values, residuals = _largest(basis, k)
    return jnp.ldexp(values, exponent), jnp.ldexp(residuals, exponent)


def _krylov(
    product: Any, n: int, dtype: Any, key: Array, *, width: int, depth: int, unroll: bool
) -> Basis:
    if width * depth >= n:
        everything = jnp.eye(n, dtype=dtype)
        return Basis(everything, product(everything))
    start, replacements = jax.random.split(key)
    return grow(
        product,
        empty_basis(n, width * depth, dtype),
        jax.random.normal(start, (n, width), dtype),
        key=replacements,
        filled=0,
        blocks=depth,
        unroll=unroll,
    )


@partial(jax.jit, static_argnames="k")
def _largest(basis: Basis, k: int) -> tuple[Array, Array]:
    """The k largest Ritz values, descending, and bounds on the distance to an eigenvalue."""
    found = ritz(basis, k)
    n, dtype = basis.images.shape[0], basis.images.dtype
    largest = jnp.max(jnp.linalg.norm(basis.images, axis=0))  # never above |K|, and soon close
    rounding = n**0.5 * jnp.finfo(dtype).eps * largest
    return found.values, jnp.linalg.norm(found.residuals, axis=0) + rounding
