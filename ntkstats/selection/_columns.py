"""Kernels as selectors see them: a diagonal, and columns on demand.

A kernel over N samples is never written out unless the user holds it already. What selectors ask
for is one column at a time, products with a vector, and the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.selection._rows import Rows
from ntkstats.typing import Array, ArrayLike, Inputs, PyTree

# On GPUs that multiply in reduced precision by default, differences of kernel entries would drown.
matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Replicated:
    """Part of a kernel that every device holds whole, such as a network's parameters."""

    value: Any


def is_replicated(node: Any) -> bool:
    """Whether a node of a pool's tree has no rows."""
    return isinstance(node, Replicated)


@runtime_checkable
class Columns(Protocol):
    """A symmetric positive semi-definite kernel over the rows of a pool.

    Every leaf with a leading axis of N is spread over devices when the pool is. An *anchor* is
    what a kernel must know of one sample to give its column anywhere: its features, its inputs.
    """

    @property
    def n(self) -> int:
        """Number of (local) rows."""
        ...

    def diagonal(self) -> Array:
        """``(n,)`` K(x, x)."""
        ...

    def anchor(self, i: Array, rows: Rows) -> PyTree:
        """What must be known of sample ``i`` of the pool."""
        ...

    def column(self, anchor: PyTree) -> Array:
        """``(n,)`` K(x, anchor) for the local rows x."""
        ...

    def times(self, v: Array, rows: Rows) -> Array:
        """``(n, m)`` product of the whole kernel with ``v`` ``(n, m)``, local rows of both."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """A kernel matrix that is there already.

    Attributes
    ----------
    matrix
        ``(N, N)``, or the local rows ``(n, N)`` of it.
    entries
        ``(N,)`` its diagonal, which local rows alone do not tell.
    """

    matrix: Array
    entries: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.matrix.shape[0])

    def diagonal(self) -> Array:
        """``(n,)`` K(x, x)."""
        return self.entries

    def anchor(self, i: Array, rows: Rows) -> PyTree:  # noqa: ARG002 - one signature for all
        """The number of the column."""
        return i

    def column(self, anchor: PyTree) -> Array:
        """``(n,)`` one column."""
        # Rows that pad a pool have no column; any will do.
        return jnp.take(self.matrix, anchor, axis=1, mode="clip")

    def times(self, v: Array, rows: Rows) -> Array:
        """``K v``."""
        return matmul(self.matrix, rows.gather(v)[: self.matrix.shape[1]])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Features:
    """The inner products of feature vectors.

    Attributes
    ----------
    phi
        ``(N, s)``: inputs, a network's representation, sketched gradients.
    """

    phi: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.phi.shape[0])

    def diagonal(self) -> Array:
        """``(n,)`` squared norms."""
        return jnp.sum(self.phi**2, axis=1)

    def anchor(self, i: Array, rows: Rows) -> PyTree:
        """The features of sample ``i``."""
        return rows.take(self.phi, i)

    def column(self, anchor: PyTree) -> Array:
        """``(n,)`` inner products with one feature vector."""
        return matmul(self.phi, anchor)

    def times(self, v: Array, rows: Rows) -> Array:
        """``Phi Phi^T v`` at O(N s) a column."""
        inner = inner_product(self.phi, v)
        return matmul(self.phi, inner if rows.axis is None else jax.lax.psum(inner, rows.axis))


def dense(matrix: ArrayLike) -> Dense:
    """A kernel from its matrix.

    Parameters
    ----------
    matrix
        Symmetric ``(N, N)``, e.g. ``empirical_ntk(..., outputs="trace").matrix``.

    Raises
    ------
    SelectionError
        It is not square.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> dense(jnp.eye(3)).diagonal().tolist()
    [1.0, 1.0, 1.0]
    """
    matrix = jnp.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        msg = (
            f"the kernel has shape {matrix.shape}; expected a square matrix (N, N) over the pool. "
            "The full NTK has a row an output: take outputs='trace'."
        )
        raise SelectionError(msg)
    return Dense(matrix, jnp.diagonal(matrix))


def linear(x: Inputs) -> Features:
    """The kernel of inner products of inputs; its distances are those between inputs.

    Parameters
    ----------
    x
        Inputs, leaves ``(N, ...)``; all leaves are flattened and joined.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> linear(jnp.ones((2, 2, 2))).phi.shape
    (2, 4)
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(x)]
    flat = [leaf.reshape(leaf.shape[0], -1).astype(jnp.result_type(float)) for leaf in leaves]
    return Features(jnp.concatenate(flat, axis=1))


def inner_product(factor: Array, v: Array) -> Array:
    """``factor^T v``, in an order in which no transposed copy of the factor is made."""
    return jnp.tensordot(v, factor, axes=(0, 0), precision=jax.lax.Precision.HIGHEST).T


def columns_of(kernel: Columns, indices: Array, rows: Rows) -> Array:
    """``(n, m)`` several columns."""
    return jax.vmap(lambda i: kernel.column(kernel.anchor(i, rows)), out_axes=1)(indices)


def gram(kernel: Columns, indices: Array, rows: Rows) -> Array:
    """``(m, m)`` kernel of some samples of the pool, known to all devices."""
    if isinstance(kernel, Features):
        phi = rows.take(kernel.phi, indices)
        return matmul(phi, phi.T)
    return rows.take(columns_of(kernel, indices, rows), indices)
