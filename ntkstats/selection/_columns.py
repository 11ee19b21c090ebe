"""Kernels as selectors see them: a diagonal, and columns on demand.

A kernel over N samples is never written out unless the user holds it already. What selectors ask
for is one column at a time, products with a vector, and the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
        inner = matmul(self.phi.T, v)
        return matmul(self.phi, inner if rows.axis is None else jax.lax.psum(inner, rows.axis))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Residual:
    """What is left of a kernel when some samples are known; see `posterior`.

    Attributes
    ----------
    base
        The kernel before.
    explained
        ``(N, t)`` factor of the part that is explained.
    """

    base: Any
    explained: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.base.n)

    def diagonal(self) -> Array:
        """``(n,)`` posterior variances, not negative."""
        return jnp.maximum(self.base.diagonal() - jnp.sum(self.explained**2, axis=1), 0)

    def anchor(self, i: Array, rows: Rows) -> PyTree:
        """The anchor of the base and the factor's row."""
        return self.base.anchor(i, rows), rows.take(self.explained, i)

    def column(self, anchor: PyTree) -> Array:
        """``(n,)`` posterior covariances."""
        inner, row = anchor
        return self.base.column(inner) - matmul(self.explained, row)

    def times(self, v: Array, rows: Rows) -> Array:
        """``(K - E E^T) v``."""
        inner = matmul(self.explained.T, v)
        inner = inner if rows.axis is None else jax.lax.psum(inner, rows.axis)
        return self.base.times(v, rows) - matmul(self.explained, inner)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaled:
    """A kernel with every sample scaled, ``a(x) K(x, y) a(y)``.

    Attributes
    ----------
    base
        The kernel before.
    scale
        ``(N,)`` factor of every sample.
    """

    base: Any
    scale: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.base.n)

    def diagonal(self) -> Array:
        """``(n,)`` scaled diagonal."""
        return self.base.diagonal() * self.scale**2

    def anchor(self, i: Array, rows: Rows) -> PyTree:
        """The anchor of the base and the sample's factor."""
        return self.base.anchor(i, rows), rows.take(self.scale, i)

    def column(self, anchor: PyTree) -> Array:
        """``(n,)`` scaled column."""
        inner, factor = anchor
        return self.base.column(inner) * self.scale * factor

    def times(self, v: Array, rows: Rows) -> Array:
        """``A K A v``."""
        shape = (-1,) + (1,) * (v.ndim - 1)
        scale = self.scale.reshape(shape)
        return scale * self.base.times(scale * v, rows)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean:
    """The mean of several kernels over one pool: an ensemble, or several heads.

    Attributes
    ----------
    parts
        The kernels.
    """

    parts: tuple[Any, ...] = field(default_factory=tuple)

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.parts[0].n)

    def diagonal(self) -> Array:
        """``(n,)`` mean diagonal."""
        return sum(part.diagonal() for part in self.parts) / len(self.parts)

    def anchor(self, i: Array, rows: Rows) -> PyTree:
        """The anchors of all parts."""
        return tuple(part.anchor(i, rows) for part in self.parts)

    def column(self, anchor: PyTree) -> Array:
        """``(n,)`` mean column."""
        columns = [part.column(a) for part, a in zip(self.parts, anchor, strict=True)]
        return sum(columns[1:], columns[0]) / len(self.parts)

    def times(self, v: Array, rows: Rows) -> Array:
        """Mean product."""
        products = [part.times(v, rows) for part in self.parts]
        return sum(products[1:], products[0]) / len(self.parts)


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


def normalised(kernel: Columns) -> Columns:
    """A kernel whose diagonal is one: angles without lengths.

    The trace of a kernel is mostly the length of its inputs; this takes it out. Samples whose
    diagonal is zero stay zero.

    Parameters
    ----------
    kernel
        Any kernel.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> normalised(dense(jnp.array([[4.0, 1.0], [1.0, 1.0]]))).diagonal().tolist()
    [1.0, 1.0]
    """
    diagonal = kernel.diagonal()
    scale = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 0)
    if isinstance(kernel, Features):
        return Features(kernel.phi * scale[:, None])
    return Scaled(kernel, scale)


def posterior(kernel: Columns, known: ArrayLike, *, noise: float = 1e-6) -> Residual:
    """What is left of a kernel once some samples are known (Gaussian-process conditioning).

    Parameters
    ----------
    kernel
        Any kernel.
    known
        ``(t,)`` indices of the pool's rows that are known.
    noise
        Variance of the observations, in units of the mean diagonal.

    References
    ----------
    Rasmussen and Williams 2006, "Gaussian processes for machine learning", section 2.2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> left = posterior(dense(jnp.eye(3)), jnp.array([1]), noise=0.0)
    >>> left.diagonal().tolist()
    [1.0, 0.0, 1.0]
    """
    known = jnp.asarray(known)
    rows = Rows(kernel.n)
    columns = jax.lax.map(lambda i: kernel.column(kernel.anchor(i, rows)), known)
    inner = columns[:, known] + noise * jnp.mean(kernel.diagonal()) * jnp.eye(known.shape[0])
    factor = jnp.linalg.cholesky(inner)
    return Residual(kernel, jax.scipy.linalg.solve_triangular(factor, columns, lower=True).T)


def mean_kernel(kernels: tuple[Columns, ...] | list[Columns]) -> Columns:
    """The mean of several kernels over one pool.

    Parameters
    ----------
    kernels
        At least one, all over the same samples. Features are joined into one array.

    Raises
    ------
    SelectionError
        There are none, or they are of different sizes.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> mean_kernel([dense(jnp.eye(2)), dense(3 * jnp.eye(2))]).diagonal().tolist()
    [2.0, 2.0]
    """
    kernels = tuple(kernels)
    sizes = {kernel.n for kernel in kernels}
    if len(sizes) != 1:
        msg = f"kernels over {sorted(sizes)} samples; expected at least one, all of one size."
        raise SelectionError(msg)
    if all(isinstance(kernel, Features) for kernel in kernels):
        phis = [kernel.phi for kernel in kernels if isinstance(kernel, Features)]
        return Features(jnp.concatenate(phis, axis=1) / len(phis) ** 0.5)
    return Mean(kernels)


def columns_of(kernel: Columns, indices: Array, rows: Rows) -> Array:
    """``(n, m)`` several columns."""
    return jax.vmap(lambda i: kernel.column(kernel.anchor(i, rows)), out_axes=1)(indices)


def gram(kernel: Columns, indices: Array, rows: Rows) -> Array:
    """``(m, m)`` kernel of some samples of the pool, known to all devices."""
    if isinstance(kernel, Features):
        phi = rows.take(kernel.phi, indices)
        return matmul(phi, phi.T)
    return rows.take(columns_of(kernel, indices, rows), indices)
