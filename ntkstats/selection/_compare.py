"""Comparing selectors: paired differences to a baseline, and correlations at one size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ntkstats.errors import SelectionError
from ntkstats.typing import Array, ArrayLike


class Paired(NamedTuple):
    """A difference to the baseline, on the same pools with the same seeds.

    Attributes
    ----------
    size
        Samples of the sets that were compared.
    mean
        Mean of ours minus the baseline's; negative is better for a loss.
    low, high
        Bootstrap interval of the mean.
    wins
        Share of pairs in which ours is smaller; ties count half.
    differences
        ``(repeats, seeds)`` all of them.
    """

    size: int
    mean: float
    low: float
    high: float
    wins: float
    differences: np.ndarray


class Correlation(NamedTuple):
    """Spearman's rank correlation over sets of one size.

    Attributes
    ----------
    size
        Samples of the sets.
    rho
        Rank correlation; NaN if one of the two is constant.
    sets
        Number of sets.
    """

    size: int
    rho: float
    sets: int


def paired_difference(
    ours: ArrayLike,
    baseline: ArrayLike,
    *,
    size: int,
    key: Array,
    level: float = 0.95,
    resamples: int = 2000,
) -> Paired:
    """Mean difference with a bootstrap interval.

    Repeats (pools, draws) are resampled, since seeds on one pool share it; the seeds of a repeat
    are averaged. With one repeat the seeds are resampled, and the interval says nothing about
    other pools.

    Parameters
    ----------
    ours, baseline
        ``(repeats, seeds)`` losses, or ``(repeats,)``; entry by entry on the same pool with the
        same seed.
    size
        Samples of the sets.
    key
        PRNG key of the bootstrap.
    level
        Coverage of the interval.
    resamples
        Number of bootstrap samples.

    Raises
    ------
    SelectionError
        The shapes differ, something is not finite, or there are fewer than two pairs.

    References
    ----------
    Efron and Tibshirani 1993, "An introduction to the bootstrap".

    Examples
    --------
    >>> import jax, numpy as np
    >>> ours, theirs = np.array([[1.0, 1.2], [0.8, 1.0]]), np.array([[1.5, 1.5], [1.4, 1.2]])
    >>> found = paired_difference(ours, theirs, size=10, key=jax.random.key(0))
    >>> round(found.mean, 2), found.wins, found.low <= found.mean <= found.high
    (-0.4, 1.0, True)
    """
    a, b = (_table(v) for v in (ours, baseline))
    if a.shape != b.shape or a.size < 2:
        msg = (
            f"ours has shape {a.shape} and the baseline {b.shape}; expected one shape "
            "(repeats, seeds) with at least two pairs."
        )
        raise SelectionError(msg)
    difference = a - b
    if not np.isfinite(difference).all():
        msg = (
            f"{int((~np.isfinite(difference)).sum())} differences are not finite (diverged runs?);"
            " expected finite losses. Leave these pairs out on both sides, and say so."
        )
        raise SelectionError(msg)
    units = difference.mean(axis=1) if difference.shape[0] > 1 else difference[0]
    drawn = np.asarray(jax.random.randint(key, (resamples, units.size), 0, units.size))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(units[drawn].mean(axis=1), [tail, 100 - tail])
    wins = np.mean(difference < 0) + 0.5 * np.mean(difference == 0)
    return Paired(int(size), float(units.mean()), float(low), float(high), float(wins), difference)


def compare(
    losses: Mapping[str, Mapping[int, ArrayLike]],
    *,
    key: Array,
    baseline: str = "random",
    level: float = 0.95,
    resamples: int = 2000,
) -> dict[tuple[str, int], Paired]:
    """Paired differences of all selectors to a baseline, each size for itself.

    Parameters
    ----------
    losses
        ``{selector: {size: (repeats, seeds)}}``.
    key, level, resamples
        As for `paired_difference`.
    baseline
        Which selector to compare with.

    Returns
    -------
    dict
        ``{(selector, size): Paired}``.

    Raises
    ------
    SelectionError
        The baseline is missing, or was not run at a size of another selector.

    Examples
    --------
    >>> import jax, numpy as np
    >>> losses = {"random": {5: np.ones((3, 2))}, "maxdet": {5: np.full((3, 2), 0.5)}}
    >>> compare(losses, key=jax.random.key(0))["maxdet", 5].mean
    -0.5
    """
    if baseline not in losses:
        msg = f"baseline={baseline!r}; expected one of {list(losses)}."
        raise SelectionError(msg)
    found = {}
    for name, sizes in losses.items():
        if name == baseline:
            continue
        for size, values in sizes.items():
            if size not in losses[baseline]:
                msg = (
                    f"{name} was run at size {size}, {baseline} only at "
                    f"{sorted(losses[baseline])}; expected the baseline at every size."
                )
                raise SelectionError(msg)
            found[name, size] = paired_difference(
                values,
                losses[baseline][size],
                size=size,
                key=key,
                level=level,
                resamples=resamples,
            )
    return found


def correlate(values: ArrayLike, losses: ArrayLike, sizes: ArrayLike) -> dict[int, Correlation]:
    """Rank correlation between a number at initialisation and the loss, each size for itself.

    Entropy per ln k falls with the size of a set and so does the loss: over several sizes at once
    the two correlate with the wrong sign. So sizes are never pooled here.

    Parameters
    ----------
    values, losses, sizes
        ``(sets,)`` of every set: the number, the loss (averaged over seeds), its size.

    Returns
    -------
    dict
        ``{size: Correlation}``.

    Raises
    ------
    SelectionError
        The shapes differ, or a size has fewer than 3 sets.

    References
    ----------
    Spearman 1904, "The proof and measurement of association between two things".

    Examples
    --------
    >>> correlate([1, 2, 3, 7, 8, 9], [3, 2, 1, 0.3, 0.2, 0.1], [5, 5, 5, 9, 9, 9])[9]
    Correlation(size=9, rho=-1.0, sets=3)
    """
    v, q, s = (np.asarray(part) for part in (values, losses, sizes))
    if v.ndim != 1 or not v.shape == q.shape == s.shape:
        msg = f"shapes {v.shape}, {q.shape} and {s.shape}; expected three vectors of one length."
        raise SelectionError(msg)
    found = {}
    for size in np.unique(s):
        mine = s == size
        if mine.sum() < 3:
            msg = f"{int(mine.sum())} sets of size {size}; expected at least 3."
            raise SelectionError(msg)
        ranks = [_ranks(part[mine]) for part in (v, q)]
        centred = [r - r.mean() for r in ranks]
        norm = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
        rho = float((centred[0] * centred[1]).sum() / norm) if norm > 0 else float("nan")
        found[int(size)] = Correlation(int(size), rho, int(mine.sum()))
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _table(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else np.atleast_2d(array)
