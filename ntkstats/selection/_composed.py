"""Kernels made of kernels: scaled, averaged, conditioned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.selection._columns import Columns, Features, inner_product, matmul
from ntkstats.selection._rows import Rows
from ntkstats.typing import Array, ArrayLike, PyTree


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
        inner = inner_product(self.explained, v)
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
    >>> from ntkstats.selection import dense
    >>> normalised(dense(jnp.array([[4.0, 1.0], [1.0, 1.0]]))).diagonal().tolist()
    [1.0, 1.0]
    """
    diagonal = kernel.diagonal()
    scale = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 0)
    if isinstance(kernel, Features):
        return Features(kernel.phi * scale[:, None])
    return Scaled(kernel, scale)


def posterior(kernel: Columns, known: ArrayLike, *, noise: float | Array = 1e-6) -> Residual:
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
    >>> from ntkstats.selection import dense
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
    >>> from ntkstats.selection import dense
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
