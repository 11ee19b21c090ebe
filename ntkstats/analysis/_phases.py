"""The phases of a trajectory: where it falls, where it rises, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ntkstats.analysis._intervals import Interval, check_confidence, mean_interval
from ntkstats.analysis._segments import choose_knots
from ntkstats.errors import AnalysisError

Kind = Literal["compression", "structure formation", "plateau"]

_KIND: dict[int, Kind] = {-1: "compression", 1: "structure formation", 0: "plateau"}
_MOST_RECORDS = 2000  # the search takes memory of their square
_SHARE = 0.05  # of the range: less is no phase, however sure
_SHORT = 0.1  # of the abscissa: a plateau shorter than that is a turn
_FEW = 3  # replicates below which a resample says nothing


class Phase(NamedTuple):
    """A stretch of training in which a number falls, rises or stays.

    Attributes
    ----------
    kind
        ``"compression"`` (it falls), ``"structure formation"`` (it rises) or ``"plateau"``.
    start, end
        Recorded steps.
    start_interval, end_interval
        Where these steps lie in resamples of the seeds that show the same phases; NaN where that
        cannot be said. The ends of the trajectory have no uncertainty.
    change
        Change over the phase, mean over seeds.
    """

    kind: Kind
    start: float
    end: float
    start_interval: tuple[float, float]
    end_interval: tuple[float, float]
    change: Interval


class Phases(NamedTuple):
    """What happened in a trajectory.

    Attributes
    ----------
    phases
        In order and without gaps; empty if there is nothing to segment (see `seeds` and the
        number of records).
    compression, formation
        What all phases of the kind amount to, as positive numbers, mean over seeds; 0 with a
        spread of 0 where there is no such phase.
    net
        Change from the first to the last record.
    seeds, dropped
        Seeds that entered, and seeds left out because some record was not finite.
    support
        Share of resamples of the seeds that show the same kinds in the same order; NaN for fewer
        than three seeds.
    confidence
        Of every interval here.
    """

    phases: tuple[Phase, ...]
    compression: Interval
    formation: Interval
    net: Interval
    seeds: int
    dropped: int
    support: float
    confidence: float

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds in order."""
        return tuple(phase.kind for phase in self.phases)


def phases(
    steps: ArrayLike,
    values: ArrayLike,
    *,
    confidence: float = 0.95,
    least: float | None = None,
    most_segments: int = 8,
    scale: Literal["log", "linear"] = "log",
    resamples: int = 200,
    seed: int = 0,
) -> Phases:
    """Find and label the phases of a trajectory recorded from several seeds.

    The mean over seeds is approximated by a chain of straight segments, whose knots are found
    exactly by dynamic programming (Bellman, 1961) and whose number is that of the lowest Schwarz
    criterion (Yao, 1988), with the scatter of the seeds as noise. A segment falls or rises if
    Student's interval of the seeds' own changes leaves out 0, at a confidence corrected for the
    number of segments (Bonferroni), and the change is at least `least`; neighbours of one kind
    are one phase, and a plateau shorter than a tenth of the (scaled) training is a turn and
    belongs to its neighbours. Uncertainty of the places, and the support of the whole picture,
    come from resampling the seeds (Efron, 1979) and doing everything again.

    With one seed there is no interval: kinds then follow the size of the change alone.

    Parameters
    ----------
    steps
        Steps of the records [T], increasing, not negative.
    values
        The trajectory [T, R] of R seeds, or [T] of one. A step at which no seed is finite counts
        as not recorded; a seed that is not finite at another step is left out as a whole
        (``dropped``).
    confidence
        Of the intervals.
    least
        Smallest change that makes a phase; by default 5 % of the range of the mean trajectory,
        and at least what rounding in float32 can make.
    most_segments
        Largest number of straight segments.
    scale
        ``"log"``: segments are straight in log(1 + step), as training is recorded as a rule;
        ``"linear"``: in the step.
    resamples, seed
        How many resamples of the seeds, and the seed of their choice; 0 for none.

    Returns
    -------
    Phases
        Of the entropy: compression and structure formation. Any other number does as well.

    Raises
    ------
    AnalysisError
        The arrays do not fit together, steps do not increase, or an option is out of range.

    Notes
    -----
    Knots are chosen on the data on which changes are then tested, so the chance of a phase where
    there is none is larger than ``1 - confidence``; `docs/sweeps.md` gives the measured rates.

    Examples
    --------
    >>> import numpy as np
    >>> steps = np.array([0, 1, 2, 4, 8, 16, 32, 64])
    >>> fall_then_rise = np.array([3.0, 2.6, 2.2, 1.8, 1.4, 1.7, 2.0, 2.3])
    >>> seeds = fall_then_rise[:, None] + 0.01 * np.random.default_rng(0).normal(size=(8, 5))
    >>> found = phases(steps, seeds)
    >>> found.kinds, found.phases[0].end
    (('compression', 'structure formation'), 8.0)
    """
    x, curves, dropped = _checked(steps, values)
    check_confidence(confidence)
    _check_options(least, most_segments, scale, resamples)
    if x.size < 2 or curves.shape[1] == 0:
        nothing = Interval(math.nan, math.nan, math.nan, curves.shape[1])
        return Phases((), nothing, nothing, nothing, curves.shape[1], dropped, math.nan, confidence)
    u = np.log1p(x) if scale == "log" else x
    mean = curves.mean(axis=1)
    if least is None:
        rounding = 10 * float(np.finfo(np.float32).eps) * float(np.abs(curves).max())
        least = max(_SHARE * float(np.ptp(mean)), rounding)
    places, kinds, levels = _segmented(u, curves, most_segments, confidence, least)
    support, spread = _resampled(
        u, curves, most_segments, confidence, least, kinds, resamples, seed
    )
    found = tuple(
        Phase(
            kind,
            float(x[places[i]]),
            float(x[places[i + 1]]),
            _interval_of(x, spread[:, i], confidence) if i else (float(x[0]),) * 2,
            _interval_of(x, spread[:, i + 1], confidence)
            if i + 1 < len(kinds)
            else (float(x[-1]),) * 2,
            mean_interval(levels[i + 1] - levels[i], confidence=confidence),
        )
        for i, kind in enumerate(kinds)
    )
    moves = np.diff(levels, axis=0)
    return Phases(
        found,
        _total(moves, kinds, "compression", confidence),
        _total(moves, kinds, "structure formation", confidence),
        mean_interval(curves[-1] - curves[0], confidence=confidence),
        curves.shape[1],
        dropped,
        support,
        confidence,
    )


def _total(moves: np.ndarray, kinds: Sequence[Kind], kind: Kind, confidence: float) -> Interval:
    of_kind = np.array([k == kind for k in kinds])
    return mean_interval(np.abs(moves[of_kind].sum(axis=0)), confidence=confidence)


def _segmented(
    u: np.ndarray, curves: np.ndarray, most: int, confidence: float, least: float
) -> tuple[np.ndarray, tuple[Kind, ...], np.ndarray]:
    """Indices of the ends of the phases, their kinds, and each seed's numbers there."""
    knots = choose_knots(u, curves, min(most, u.size - 1))
    mean = curves.mean(axis=1)
    each = 1 - (1 - confidence) / (knots.size - 1)
    while True:
        signs = [_sign(move, each, least) for move in np.diff(curves[knots], axis=0)]
        # small moves in one direction may be a phase when they are taken together
        kept = [0, *(i for i in range(1, len(signs)) if signs[i] != signs[i - 1]), len(signs)]
        fewer = knots[kept]
        if fewer.size == knots.size:
            fewer = _without_short_plateau(u, mean, knots, signs)
            if fewer.size == knots.size:
                return knots, tuple(_KIND[s] for s in signs), curves[knots]
        knots = fewer


def _without_short_plateau(
    u: np.ndarray, mean: np.ndarray, knots: np.ndarray, signs: Sequence[int]
) -> np.ndarray:
    """Give the shortest plateau to its neighbours if it is short: a turn is no plateau."""
    lengths = np.where(np.array(signs) == 0, np.diff(u[knots]), np.inf)
    i = int(np.argmin(lengths))
    if len(signs) == 1 or lengths[i] >= _SHORT * (u[-1] - u[0]):
        return knots
    if i == 0 or i == len(signs) - 1:
        return np.delete(knots, 1 if i == 0 else -2)
    before, after = signs[i - 1], signs[i + 1]
    if before == after:
        return np.delete(knots, [i, i + 1])
    inside = mean[knots[i] : knots[i + 1] + 1]
    turn = knots[i] + int(np.argmin(inside) if before < 0 else np.argmax(inside))
    return np.concatenate([knots[:i], [turn], knots[i + 2 :]])


def _sign(move: np.ndarray, confidence: float, least: float) -> int:
    change = mean_interval(move, confidence=confidence)
    if abs(change.value) < least:
        return 0
    return change.sign if change.n > 1 else int(np.sign(change.value))


def _resampled(
    u: np.ndarray,
    curves: np.ndarray,
    most: int,
    confidence: float,
    least: float,
    kinds: tuple[Kind, ...],
    resamples: int,
    seed: int,
) -> tuple[float, np.ndarray]:
    """Share of resamples with the same kinds, and where their phases begin and end."""
    nothing = np.empty((0, len(kinds) + 1), dtype=int)
    seeds = curves.shape[1]
    if seeds < _FEW or not resamples:
        return math.nan, nothing
    draw = np.random.default_rng(seed)
    same = []
    for _ in range(resamples):
        chosen = draw.integers(seeds, size=seeds)
        places, others, _ = _segmented(u, curves[:, chosen], most, confidence, least)
        if others == kinds:
            same.append(places)
    return len(same) / resamples, np.array(same) if same else nothing


def _interval_of(x: np.ndarray, places: np.ndarray, confidence: float) -> tuple[float, float]:
    """Quantiles of the places, out to the records next to them: a bend lies between records."""
    if not places.size:
        return (math.nan, math.nan)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(places, tails, method="nearest")
    return float(x[low - 1]), float(x[high + 1])


def _checked(steps: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray, int]:
    """Steps, curves of the seeds that are finite wherever there is a record, and seeds dropped."""
    x = np.asarray(steps, dtype=np.float64)
    curves = np.asarray(values, dtype=np.float64)
    curves = curves[:, None] if curves.ndim == 1 else curves
    if x.ndim != 1 or curves.ndim != 2 or curves.shape[0] != x.size:
        msg = (
            f"steps has shape {x.shape} and values {np.shape(values)}; "
            "expected [T] and [T] or [T, R]: one row a step, one column a seed."
        )
        raise AnalysisError(msg)
    if x.size and (not np.isfinite(x).all() or x[0] < 0 or (np.diff(x) <= 0).any()):
        msg = "steps are not increasing numbers from 0 on; sort the records and drop repeated ones."
        raise AnalysisError(msg)
    if x.size > _MOST_RECORDS:
        msg = (
            f"{x.size} records; expected at most {_MOST_RECORDS}. "
            "Thin them, for example with ds.isel(step=slice(None, None, 10))."
        )
        raise AnalysisError(msg)
    finite = np.isfinite(curves)
    recorded = finite.any(axis=1)
    whole = finite[recorded].all(axis=0) & recorded.any()
    return x[recorded], curves[np.ix_(recorded, whole)], int((~whole).sum())


def _check_options(least: float | None, most: int, scale: str, resamples: int) -> None:
    if least is not None and not least >= 0:
        msg = f"least={least!r}; expected the smallest change that counts, 0 or more."
        raise AnalysisError(msg)
    if most < 1 or resamples < 0:
        msg = f"most_segments={most!r}, resamples={resamples!r}; expected at least 1 and 0."
        raise AnalysisError(msg)
    if scale not in ("log", "linear"):
        msg = f"scale={scale!r}; expected 'log' or 'linear'."
        raise AnalysisError(msg)
