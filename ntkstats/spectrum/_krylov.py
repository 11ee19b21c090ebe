"""An orthonormal basis of block Krylov spaces, with full re-orthogonalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ntkstats._lanes import Index, loop
from ntkstats.typing import Array


class Basis(NamedTuple):
    """Orthonormal columns and their images, zero where not filled yet.

    The images are kept, rather than the recurrence that they satisfy: projections and residuals
    are then those of K itself, whatever rounding did to the recurrence.

    Attributes
    ----------
    vectors
        V [n, m].
    images
        K V [n, m].
    """

    vectors: Array
    images: Array


def empty_basis(n: int, m: int, dtype: jnp.dtype) -> Basis:
    """Room for m columns."""
    return Basis(jnp.zeros((n, m), dtype), jnp.zeros((n, m), dtype))


def grow(
    product: Callable[[Array], Array],
    basis: Basis,
    start: Float[Array, "n b"],
    *,
    key: Array,
    filled: int,
    blocks: int,
    unroll: bool,
) -> Basis:
    """Add ``blocks`` blocks: ``start``, then the image of the block before, orthonormalised.

    Parameters
    ----------
    product
        ``product(V [n, b]) -> K V``.
    basis
        With its first ``filled`` columns in place and zeros behind.
    start
        Block [n, b] to start from.
    key
        For the directions that replace exhausted ones.
    filled, blocks
        Columns in place, blocks to add; there must be room, and n columns in all at most.
    unroll
        Python loop, so that ``product`` runs on its own (an operator compiles itself and must not
        become constants of a larger program).
    """
    width = start.shape[1]

    def body(i: Index, carry: tuple[Basis, Array]) -> tuple[Basis, Array]:
        basis, block = carry
        block = orthonormalised(basis.vectors, block, jax.random.fold_in(key, i))
        image = product(block)
        return _placed(basis, block, image, filled + i * width), image

    return loop(0, blocks, body, (basis, start), unroll=unroll)[0]


@jax.jit
def orthonormalised(
    vectors: Float[Array, "n m"], block: Float[Array, "n b"], key: Array
) -> Float[Array, "n b"]:
    """Orthonormal columns [n, b], orthogonal to ``vectors``, that span what ``block`` adds.

    Directions in which the block adds nothing (K has low rank, say) are replaced by random ones:
    the basis stays orthonormal and Ritz values are never made up.
    """
    noise = jax.random.normal(key, block.shape, block.dtype)
    size = jnp.max(jnp.abs(block))
    # Far below rounding of the block, except where there is nothing but rounding in it.
    block = block + jnp.where(size > 0, jnp.finfo(block.dtype).eps * size, 1) * noise
    # Twice is enough for a direction of which something is left; what was mere rounding still
    # leans on the other vectors after the first pass has blown it up, hence the third.
    for _ in range(3):
        overlap = jnp.matmul(vectors.T, block, precision="highest")
        block = block - jnp.matmul(vectors, overlap, precision="highest")
        block = jnp.linalg.qr(block)[0]
    return block


@jax.jit
def _placed(basis: Basis, block: Array, image: Array, column: Index) -> Basis:
    return Basis(
        jax.lax.dynamic_update_slice_in_dim(basis.vectors, block, column, axis=1),
        jax.lax.dynamic_update_slice_in_dim(basis.images, image, column, axis=1),
    )


class Ritz(NamedTuple):
    """What a basis knows about K.

    Attributes
    ----------
    values
        The largest Ritz values [k], descending; by Courant and Fischer the j-th lies below the
        j-th largest eigenvalue.
    rotation
        Their vectors in the basis [m, k], columns of length one.
    residuals
        ``K v - theta v`` of each Ritz vector [n, k].
    """

    values: Array
    rotation: Array
    residuals: Array


def ritz(basis: Basis, count: int) -> Ritz:
    """Rayleigh-Ritz: the ``count`` largest, with residuals; NaN when an image is not finite."""
    vectors, images = basis
    projected = jnp.matmul(vectors.T, images, precision="highest")
    finite = jnp.all(jnp.isfinite(projected))
    # Solvers may loop forever or return garbage on NaN, so they never see one.
    values, rotation = jnp.linalg.eigh(jnp.where(finite, 0.5 * (projected + projected.T), 0))
    values, rotation = values[::-1][:count], rotation[:, ::-1][:, :count]
    turned = jnp.matmul(images, rotation, precision="highest")
    onto = jnp.matmul(vectors, rotation, precision="highest")
    return Ritz(jnp.where(finite, values, jnp.nan), rotation, turned - onto * values)
