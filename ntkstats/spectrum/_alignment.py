"""How alike two kernels are, and how well a kernel fits its targets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntkstats._compat import is_tracer
from ntkstats.errors import SpectrumError
from ntkstats.spectrum._checks import as_kernel, as_pair, in_own_precision
from ntkstats.spectrum._scaling import to_unit_scale
from ntkstats.typing import Array, ArrayLike


@in_own_precision
def kernel_target_alignment(
    K: ArrayLike, y: ArrayLike, *, centered: bool = False
) -> Float[Array, ""]:
    """Kernel-target alignment ``<K, Y Y^T> / (|K|_F |Y Y^T|_F)``.

    Parameters
    ----------
    K
        Kernel [N, N] over samples, or [N C, N C] over samples and outputs (row ``sample * C +
        output``). Against the first, ``Y Y^T`` sums over the columns of the targets; against the
        second, ``Y`` is the vector of all targets.
    y
        Class labels [N], integers, taken as one-hot vectors; or real targets [N] or [N, C].
    centered
        Centre both over the samples first, each output for itself. A constant shift of all
        gradients or targets then changes nothing.

    Returns
    -------
    Array
        A pure number between -1 and 1, a scalar; not below 0 for Gram matrices. NaN if the kernel
        or the (centred) targets vanish.

    Raises
    ------
    SpectrumError
        ``K`` is not a square kernel, its size does not fit the targets, or a label is not one of
        its C classes.

    References
    ----------
    Cristianini et al. 2001, "On kernel-target alignment"; Cortes et al. 2012, "Algorithms for
    learning kernels based on centered alignment" (``centered=True``).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> y = jnp.array([1.0, -1.0, 1.0])
    >>> round(float(kernel_target_alignment(jnp.outer(y, y), y)), 4)
    1.0
    """
    matrix = as_kernel(K)
    outputs = _outputs_per_sample(matrix.shape[0], y)
    target = _target_kernel(y, outputs, matrix.dtype)
    if centered:
        matrix = center_kernel(matrix, outputs_per_sample=outputs)
        target = center_kernel(target, outputs_per_sample=outputs)
    return _cosine(matrix, target)


@in_own_precision
def cka(K1: ArrayLike, K2: ArrayLike, *, outputs_per_sample: int = 1) -> Float[Array, ""]:
    """Centred kernel alignment ``<H K1 H, H K2 H> / (|H K1 H|_F |H K2 H|_F)``.

    Parameters
    ----------
    K1, K2
        Kernels [n, n] on the same samples.
    outputs_per_sample
        C for kernels over samples and outputs (row ``sample * C + output``): each output is then
        centred for itself.

    Returns
    -------
    Array
        A pure number, 0 to 1 for Gram matrices, a scalar; NaN if a centred kernel vanishes.

    Raises
    ------
    SpectrumError
        The kernels are not square, differ in size, or do not hold whole samples.

    References
    ----------
    Cortes et al. 2012, "Algorithms for learning kernels based on centered alignment"; Kornblith
    et al. 2019, "Similarity of neural network representations revisited".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> K = jnp.array([[2.0, 1.0], [1.0, 3.0]])
    >>> round(float(cka(K, 5 * K + 7)), 4)
    1.0
    """
    first, second = as_pair(K1, K2)
    return _cosine(
        center_kernel(first, outputs_per_sample=outputs_per_sample),
        center_kernel(second, outputs_per_sample=outputs_per_sample),
    )


@in_own_precision
def kernel_velocity(K1: ArrayLike, K2: ArrayLike) -> Float[Array, ""]:
    """Kernel velocity (kernel distance) ``1 - <K1, K2> / (|K1|_F |K2|_F)``.

    Computed from the difference of the kernels, so it stays accurate when they are nearly equal,
    where one minus a cosine would leave only rounding error.

    Parameters
    ----------
    K1, K2
        Kernels [n, n] on the same probe at two moments.

    Returns
    -------
    Array
        A pure number, 0 to 1 for Gram matrices, a scalar; exactly 0 for equal kernels, NaN if one
        vanishes.

    Raises
    ------
    SpectrumError
        The kernels are not square or differ in size.

    References
    ----------
    Fort et al. 2020, "Deep learning versus kernel learning: an empirical study of loss landscape
    geometry and the time evolution of the neural tangent kernel".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(kernel_velocity(jnp.diag(jnp.array([1.0, 0.0])), jnp.diag(jnp.array([0.0, 2.0]))))
    1.0
    """
    first, second = (_unit_norm(matrix) for matrix in as_pair(K1, K2))
    difference, total = first - second, first + second
    norms = jnp.linalg.norm(first), jnp.linalg.norm(second)
    # |a| - |b|, taken from the difference: removes what the rounding of the norms left in it.
    along = jnp.sum(difference * total) / (norms[0] + norms[1])
    across = jnp.sum(difference**2) - along**2
    return jnp.where(across < 0, 0, across) / (2 * norms[0] * norms[1])


@in_own_precision
def center_kernel(K: ArrayLike, *, outputs_per_sample: int = 1) -> Float[Array, "n n"]:
    """Kernel of features whose mean over the samples is removed, ``H K H``.

    Parameters
    ----------
    K
        Kernel [n, n].
    outputs_per_sample
        C for a kernel over samples and outputs (row ``sample * C + output``): the mean of each
        output is removed.

    Returns
    -------
    Array
        Centred kernel [n, n].

    Raises
    ------
    SpectrumError
        ``K`` is not a square kernel or does not hold whole samples.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> center_kernel(jnp.ones((2, 2))).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    matrix = as_kernel(K)
    samples = whole_samples(matrix.shape[0], outputs_per_sample)
    blocks = matrix.reshape(samples, outputs_per_sample, samples, outputs_per_sample)
    blocks = blocks - jnp.mean(blocks, axis=0, keepdims=True)
    blocks = blocks - jnp.mean(blocks, axis=2, keepdims=True)
    return blocks.reshape(matrix.shape)


def whole_samples(size: int, outputs_per_sample: int) -> int:
    """Give the number of samples in a kernel of that size, or raise SpectrumError."""
    if outputs_per_sample < 1 or size % outputs_per_sample:
        msg = (
            f"outputs_per_sample={outputs_per_sample} with a kernel of size {size}; expected a"
            " positive divisor of the size. Give the C of a kernel whose row index is sample * C +"
            " output, and 1 for a kernel over samples."
        )
        raise SpectrumError(msg)
    return size // outputs_per_sample


def _outputs_per_sample(size: int, y: Any) -> int:
    """C, from the sizes of kernel and targets."""
    shape = tuple(np.shape(y))
    if len(shape) not in (1, 2) or 0 in shape:
        msg = f"y has shape {shape}; expected labels (N,) or targets (N,) or (N, C) of the probe."
        raise SpectrumError(msg)
    if size % shape[0]:
        msg = (
            f"K has {size} rows and y {shape[0]} samples; expected N or N * C rows. Pass the"
            " targets of the probe that the kernel was measured on."
        )
        raise SpectrumError(msg)
    outputs = size // shape[0]
    columns = shape[1] if len(shape) == 2 else outputs if _holds_labels(y) else 1
    if outputs not in (1, columns):
        msg = (
            f"K has {outputs} rows for each of the {shape[0]} samples and y has {columns} columns;"
            " expected as many columns as rows for a sample, or a kernel over samples."
        )
        raise SpectrumError(msg)
    return outputs


def _holds_labels(y: Any) -> bool:
    return np.ndim(y) == 1 and not jnp.issubdtype(y.dtype, jnp.floating)


def _target_kernel(y: Any, outputs: int, dtype: Any) -> Float[Array, "n n"]:
    if _holds_labels(y):
        if outputs == 1:  # one-hot vectors meet in one exactly where labels agree
            labels = jnp.asarray(y)
            return (labels[:, None] == labels[None, :]).astype(dtype)
        _check_labels(y, outputs)
        targets = jax.nn.one_hot(y, outputs, dtype=dtype)
    else:
        targets = jnp.asarray(y).astype(dtype)
    rows = targets.reshape(-1, 1) if outputs > 1 else targets.reshape(targets.shape[0], -1)
    return jnp.matmul(rows, rows.T, precision="highest")


def _check_labels(y: Any, classes: int) -> None:
    """Refuse labels outside 0 .. classes - 1 where they can be seen."""
    if is_tracer(y):
        return
    low, high = int(np.min(y)), int(np.max(y))
    if low < 0 or high >= classes:
        msg = (
            f"y holds labels from {low} to {high} and the kernel has {classes} outputs a sample;"
            f" expected labels 0 to {classes - 1}. Renumber the labels, or pass targets (N, C)."
        )
        raise SpectrumError(msg)


def _unit_norm(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    scaled, _ = to_unit_scale(matrix)
    return scaled / jnp.linalg.norm(scaled)


def _cosine(first: Float[Array, "n n"], second: Float[Array, "n n"]) -> Float[Array, ""]:
    return jnp.sum(_unit_norm(first) * _unit_norm(second))
