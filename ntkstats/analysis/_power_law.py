"""How a number scales with a size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ntkstats.analysis._intervals import Interval, check_confidence
from ntkstats.errors import AnalysisError


class PowerLaw(NamedTuple):
    """``y = factor * x ** exponent``.

    Attributes
    ----------
    exponent
        With its interval; `n` counts the sizes.
    factor
        y at x = 1.
    scatter
        Standard deviation of ln y of the sizes around the line: whether it is a power law at all.
    """

    exponent: Interval
    factor: float
    scatter: float


def power_law(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> PowerLaw:
    """Fit a power law to a number measured at several sizes.

    A line through the means of ln y at each ln x, by least squares with Student's interval of the
    slope over sizes. Seeds enter through the mean alone: more of them do not hide that the points
    are not on a line.

    Parameters
    ----------
    x
        Sizes [K], positive.
    y
        Numbers [K], or [K, R] of R seeds; what is not finite or not positive is left out.
    confidence
        Of the interval of the exponent.

    Returns
    -------
    PowerLaw
        NaN for fewer than two sizes; without interval for fewer than three.

    Raises
    ------
    AnalysisError
        Shapes do not fit, or a size is not positive.

    Examples
    --------
    >>> law = power_law([1, 2, 4, 8], [3.0, 6.0, 12.0, 24.0])
    >>> round(law.exponent.value, 6), round(law.factor, 6)
    (1.0, 3.0)
    """
    check_confidence(confidence)
    sizes, numbers = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if sizes.ndim != 1 or numbers.ndim != 2 or numbers.shape[0] != sizes.size:
        msg = f"x has shape {sizes.shape} and y {np.shape(y)}; expected [K] and [K] or [K, R]."
        raise AnalysisError(msg)
    if not (sizes > 0).all():
        msg = f"x={sizes.tolist()}; a power law needs positive sizes."
        raise AnalysisError(msg)
    usable = np.isfinite(numbers) & (numbers > 0)
    there = usable.any(axis=1)
    logs = np.log(numbers, where=usable, out=np.zeros_like(numbers))
    a = np.log(sizes[there])
    b = logs[there].sum(axis=1) / usable[there].sum(axis=1)
    n = int(np.unique(a).size)
    if n < 2:
        nan = math.nan
        return PowerLaw(Interval(nan, nan, nan, n), nan, nan)
    slope, offset = (float(v) for v in np.polyfit(a, b, 1))
    rest = b - (slope * a + offset)
    freedom = a.size - 2
    low = high = scatter = math.nan
    if freedom > 0:
        scatter = math.sqrt(float((rest**2).sum()) / freedom)
        error = scatter / math.sqrt(float(((a - a.mean()) ** 2).sum()))
        half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
        low, high = slope - half, slope + half
    return PowerLaw(Interval(slope, low, high, n), math.exp(offset), scatter)
