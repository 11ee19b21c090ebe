"""Standard errors by jackknife: over random draws, and over the samples of the probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntkstats.errors import SpectrumError
from ntkstats.spectrum._alignment import whole_samples
from ntkstats.spectrum._checks import as_kernel, as_real, in_own_precision
from ntkstats.typing import Array, ArrayLike, Estimate, PyTree

Statistic = Callable[[Array], PyTree]
"""``statistic(K [n, n])``: a scalar, or a pytree of arrays whose standard errors are wanted."""


def exact(value: PyTree) -> Estimate:
    """Wrap a number that has no error: standard error 0, method ``"exact"``.

    Parameters
    ----------
    value
        A number, an array, or a pytree of them.

    Returns
    -------
    Estimate
        With ``cost=1`` and no seed.

    Examples
    --------
    >>> exact(2.0).method
    'exact'
    """
    return Estimate(value, jax.tree.map(jnp.zeros_like, value), "exact", 1, None)


@in_own_precision
def jackknife_draws(draws: ArrayLike, statistic: Statistic, *, seed: int | None = None) -> Estimate:
    """Bias-corrected statistic of the mean of random kernels, with its standard error.

    Each draw estimates one kernel without bias (``outputs="probe"``), but a curved statistic of
    their mean is biased: entropy comes out too small. Leaving out one draw at a time estimates
    the bias, of which the leading term 1/D is removed, and the spread.

    The error bar itself is rough when draws are few. For entropies of random Jacobians, two
    standard errors covered the truth in 69-87 % of cases with 4 draws, 80-94 % with 8 and 87-95 %
    with 16 (nominal: 95 %), worst where the outputs share a strong common gradient.

    Parameters
    ----------
    draws
        Kernels [D, n, n], independent and identically distributed, D >= 2.
    statistic
        Function of one kernel [n, n] that JAX can trace; gives a scalar or a pytree of arrays.
    seed
        Seed the draws were made with, for the record.

    Returns
    -------
    Estimate
        ``value`` and ``stderr`` as ``statistic`` gives them; ``cost`` counts evaluations of
        ``statistic`` (D + 1). Under ``jit`` return its ``value`` and ``stderr``.

    Raises
    ------
    SpectrumError
        Fewer than two draws, or kernels that are not square.

    References
    ----------
    Quenouille 1956, "Notes on bias in estimation"; Efron and Stein 1981, "The jackknife estimate
    of variance".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> draws = jnp.array([1.0, 2.0, 3.0])[:, None, None] * jnp.eye(2)
    >>> estimate = jackknife_draws(draws, jnp.trace)
    >>> round(float(estimate.value), 4), round(float(estimate.stderr), 4)
    (4.0, 1.1547)
    """
    kernels = as_real(draws, "draws")
    count = kernels.shape[0] if kernels.ndim else 0
    if kernels.ndim != 3 or count < 2:
        msg = (
            f"draws has shape {kernels.shape}; expected at least two kernels (D, n, n). Ask the"
            " kernel for more draws."
        )
        raise SpectrumError(msg)
    as_kernel(kernels[0], "each draw")
    mean = jnp.mean(kernels, axis=0)
    # The mean without one draw, written so that nothing large is subtracted.
    replicates = jax.lax.map(lambda K: statistic(mean + (mean - K) / (count - 1)), kernels)
    value, stderr = _combine(statistic(mean), replicates, np.full(count, count))
    method = f"jackknife over {count} draws"
    return Estimate(value, stderr, method, count + 1, seed)


@in_own_precision
def jackknife_samples(
    K: ArrayLike,
    statistic: Statistic,
    *,
    blocks: int = 10,
    outputs_per_sample: int = 1,
    bias_corrected: bool = False,
) -> Estimate:
    """Statistic of a kernel with the standard error that comes from the choice of samples.

    One block of samples at a time is left out. The error says how much the number would change
    with another probe of the same size n; it says nothing about other sizes, and spectral numbers
    drift with n, so n belongs to the result.

    Parameters
    ----------
    K
        Kernel [n, n] on samples drawn independently.
    statistic
        Function of one kernel of any size that JAX can trace; gives a scalar or a pytree of
        arrays whose shapes do not depend on the size of the kernel.
    blocks
        Number of blocks, 2 to the number of samples. Sample i belongs to block ``i % blocks``, so
        data sorted by class leave out a bit of each. Block sizes may differ by one.
    outputs_per_sample
        C for a kernel over samples and outputs (row ``sample * C + output``).
    bias_corrected
        Also remove the leading bias 1/n. By default ``value`` is the statistic of ``K`` itself.

    Returns
    -------
    Estimate
        ``value`` and ``stderr`` as ``statistic`` gives them; ``method`` states blocks and n,
        ``cost`` counts evaluations of ``statistic`` (blocks + 1). Under ``jit``, which saves
        compiling ``statistic`` anew at every call, return its ``value`` and ``stderr``.

    Raises
    ------
    SpectrumError
        ``K`` is not a square kernel, or ``blocks`` or ``outputs_per_sample`` do not fit.

    References
    ----------
    Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for unequal m".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> K = jnp.diag(jnp.array([1.0, 2.0, 3.0, 4.0]))
    >>> estimate = jackknife_samples(K, lambda K: jnp.mean(jnp.diagonal(K)), blocks=4)
    >>> round(float(estimate.value), 4), round(float(estimate.stderr), 4)
    (2.5, 0.6455)
    """
    matrix = as_kernel(K)
    samples = whole_samples(matrix.shape[0], outputs_per_sample)
    if not 2 <= blocks <= samples:
        msg = (
            f"blocks={blocks} with {samples} samples; expected 2 <= blocks <= {samples}. Use"
            " fewer blocks or a larger probe."
        )
        raise SpectrumError(msg)
    parts = [
        jax.lax.map(lambda rows: statistic(matrix[rows][:, rows]), kept)
        for kept in _kept_rows(samples, blocks, outputs_per_sample)
    ]
    replicates = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    sizes = np.array([len(range(block, samples, blocks)) for block in range(blocks)])
    whole = statistic(matrix)
    corrected, stderr = _combine(whole, replicates, samples / sizes)
    method = f"jackknife over {blocks} blocks of {samples} samples"
    return Estimate(corrected if bias_corrected else whole, stderr, method, blocks + 1, None)


def _kept_rows(samples: int, blocks: int, outputs: int) -> list[np.ndarray]:
    """Row indices [blocks of one size, rows kept] that remain without each block, larger first.

    Blocks come in at most two sizes; those of one size share shapes, so any number of samples
    works with static shapes and without padding.
    """
    block_of_row = np.repeat(np.arange(samples) % blocks, outputs)
    kept = [np.flatnonzero(block_of_row != block) for block in range(blocks)]
    larger = samples % blocks
    return [np.stack(group) for group in (kept[:larger], kept[larger:]) if group]


def _combine(whole: PyTree, replicates: PyTree, ratios: Any) -> tuple[PyTree, PyTree]:
    """Bias-corrected values and standard errors, leaf by leaf."""
    parts = [
        _combine_leaf(full, left_out, ratios)
        for full, left_out in zip(jax.tree.leaves(whole), jax.tree.leaves(replicates), strict=True)
    ]
    treedef = jax.tree.structure(whole)
    values, errors = zip(*parts, strict=True)
    return jax.tree.unflatten(treedef, values), jax.tree.unflatten(treedef, errors)


def _combine_leaf(
    full: Float[Array, "*s"], left_out: Float[Array, "g *s"], ratios: np.ndarray
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """Delete-m jackknife; ``ratios`` [g] are sample size over block size."""
    h = jnp.asarray(ratios, full.dtype).reshape(-1, *(1,) * full.ndim)
    deltas = full - left_out
    shift = jnp.sum((1 - 1 / h) * deltas, axis=0)
    deviations = (h - 1) * deltas - shift
    return full + shift, jnp.sqrt(jnp.mean(deviations**2 / (h - 1), axis=0))
