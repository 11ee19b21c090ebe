"""Means over replicates, with the interval that they allow."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ntkstats.errors import AnalysisError


class Interval(NamedTuple):
    """A number with its confidence interval.

    Attributes
    ----------
    value
        The estimate; NaN if there is nothing to estimate from.
    low, high
        Ends of the interval; NaN if the data allow none (one replicate has no spread).
    n
        How many finite replicates entered.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies wholly on one side of 0, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def check_confidence(confidence: float) -> float:
    """Refuse what is no probability between 0 and 1."""
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        msg = f"confidence={confidence!r}; expected a probability between 0 and 1, such as 0.95."
        raise AnalysisError(msg)
    return confidence


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Mean of independent replicates with Student's interval (Student, 1908).

    Parameters
    ----------
    values
        One number a replicate [R]; those that are not finite are left out and not counted.
    confidence
        Probability with which the interval covers the mean of normally distributed replicates.

    Returns
    -------
    Interval
        Without ends for fewer than two replicates.

    Raises
    ------
    AnalysisError
        `values` has not one axis, or `confidence` is no probability.

    Examples
    --------
    >>> mean_interval([1.0, 2.0, 3.0]).value
    2.0
    """
    check_confidence(confidence)
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1:
        msg = f"values has shape {given.shape}; expected one number a replicate, [R]."
        raise AnalysisError(msg)
    finite = given[np.isfinite(given)]
    n = int(finite.size)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(finite.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    error = float(finite.std(ddof=1)) / math.sqrt(n)
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    return Interval(mean, mean - half, mean + half, n)
