"""Correlation of two numbers over seeds, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ntkstats.analysis._intervals import Interval, check_confidence
from ntkstats.errors import AnalysisError

_FEWEST = 4  # the transformed correlation has variance 1 / (n - 3)


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kind: Literal["pearson", "spearman"] = "pearson",
    confidence: float = 0.95,
) -> Interval:
    """Correlation coefficient with its interval.

    Fisher's transformation (Fisher, 1921); for ranks with the variance of Bonett and Wright
    (2000).

    Parameters
    ----------
    x, y
        One number a seed each [R]; pairs that are not finite are left out.
    kind
        ``"pearson"`` for straight lines, ``"spearman"`` for ranks.
    confidence
        Of the interval.

    Returns
    -------
    Interval
        NaN where x or y does not vary or there are fewer than 3 pairs; without ends for fewer
        than 4.

    Raises
    ------
    AnalysisError
        The arrays differ in length, or an option is unknown.

    Examples
    --------
    >>> round(correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], kind="spearman").value, 3)
    0.8
    """
    check_confidence(confidence)
    if kind not in ("pearson", "spearman"):
        msg = f"kind={kind!r}; expected 'pearson' or 'spearman'."
        raise AnalysisError(msg)
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        msg = f"x has shape {a.shape} and y {b.shape}; expected one number a seed in both, [R]."
        raise AnalysisError(msg)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    n = int(a.size)
    if n < 3 or _still(a) or _still(b):
        return Interval(math.nan, math.nan, math.nan, n)
    if kind == "spearman":
        a, b = stats.rankdata(a), stats.rankdata(b)
    r = float(np.clip(np.corrcoef(a, b)[0, 1], -1.0, 1.0))
    if n < _FEWEST:
        return Interval(r, math.nan, math.nan, n)
    width = math.sqrt((1 + r * r / 2 if kind == "spearman" else 1.0) / (n - 3))
    return _from_z(r, width, n, confidence)


def pooled_correlation(parts: Iterable[Interval], *, confidence: float = 0.95) -> Interval:
    """One correlation from those within several groups, each of its own size.

    The mean of the transformed correlations, weighted by n - 3 (Hedges and Olkin, 1985): what
    varies between the groups does not enter.

    Parameters
    ----------
    parts
        Pearson correlations from `correlation`; those without an interval are left out.
    confidence
        Of the interval.

    Raises
    ------
    AnalysisError
        `confidence` is no probability.

    Examples
    --------
    >>> one = correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    >>> pooled = pooled_correlation([one, one])
    >>> round(pooled.value, 3), pooled.n
    (0.8, 10)
    """
    check_confidence(confidence)
    usable = [p for p in parts if p.n >= _FEWEST and math.isfinite(p.value)]
    if not usable:
        return Interval(math.nan, math.nan, math.nan, 0)
    weights = np.array([p.n - 3.0 for p in usable])
    # a correlation of exactly 1 would outweigh everything
    z = np.arctanh(np.clip([p.value for p in usable], -1 + 1e-12, 1 - 1e-12))
    centre = float(np.tanh((weights * z).sum() / weights.sum()))
    return _from_z(centre, 1 / math.sqrt(weights.sum()), sum(p.n for p in usable), confidence)


def _still(values: np.ndarray) -> bool:
    """Whether they vary by rounding at most."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max(initial=0.0))


def _from_z(r: float, width: float, n: int, confidence: float) -> Interval:
    z = math.atanh(r) if abs(r) < 1 else math.copysign(math.inf, r)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * width
    return Interval(r, math.tanh(z - half), math.tanh(z + half), n)
