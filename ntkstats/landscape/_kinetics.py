"""Rates between minima, first-passage times, committors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.landscape._network import Network
from ntkstats.landscape._thermodynamics import known, log_of


def rate_matrix(network: Network, temperature: float) -> np.ndarray:
    """Rates between orbits of minima [n, n] from harmonic transition-state theory.

    ``k[i, j]`` is the rate from i to j: over each transition state with orbit ``o_ts``,
    ``(o_ts / o_i) / (2 pi) sqrt(prod curvatures of i / prod positive curvatures of ts)
    exp(-(E_ts - E_i) / T)`` for overdamped or ballistic motion alike up to a constant. Transition
    states that join a minimum with an image of itself leave its orbit where it is and do not
    count.

    Parameters
    ----------
    network
        With log-determinants and connections.
    temperature
        In units of the loss.

    Raises
    ------
    LandscapeError
        The temperature is not positive or log-determinants are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkstats.landscape import network_from_arrays
    >>> network = network_from_arrays(
    ...     [0.0, 0.0], [0.0], [[0, 1]], minima_log_det=[0.0, 0.0], saddles_log_det=[0.0]
    ... )
    >>> (2 * np.pi * rate_matrix(network, 1.0)).round(6)
    array([[0., 1.],
           [1., 0.]])
    """
    if not temperature > 0:
        msg = f"temperature={temperature!r}; expected a positive number."
        raise LandscapeError(msg)
    minima, saddles = known(network), network.saddles
    n = len(minima)
    rates = np.zeros((n, n))
    images = [log_of(size) for size in minima.orbit]
    for j in np.flatnonzero(network.connected):
        a, b = network.ends[j]
        if a == b:
            continue
        if not np.isfinite(saddles.log_det[j]):
            msg = f"the log-determinant of transition state {j} is not known; rates need it."
            raise LandscapeError(msg)
        for i, k in ((a, b), (b, a)):
            log_rate = (
                log_of(saddles.orbit[j])
                - images[i]
                + 0.5 * (minima.log_det[i] - saddles.log_det[j])
                - (saddles.energy[j] - minima.energy[i]) / temperature
            )
            rates[i, k] += np.exp(log_rate) / (2 * np.pi)
    return rates


class Passage(NamedTuple):
    """Kinetics between two sets of minima, A to B.

    Attributes
    ----------
    rate
        Mean over the minima of A of ``1 / mfpt``, with the weights given.
    steady
        Rate in the steady state, where what arrives in B is not replaced: mean over A of the
        escape rate times the probability to reach B before returning to A.
    mfpt
        Mean first-passage time to B from each minimum of A.
    committor
        Probability to reach B before A from each minimum [n]: 0 in A, 1 in B.
    """

    rate: float
    steady: float
    mfpt: np.ndarray
    committor: np.ndarray


def passage(
    rates: np.ndarray,
    a: Sequence[int],
    b: Sequence[int],
    *,
    weights: np.ndarray | None = None,
) -> Passage:
    """First-passage times, committors and rates from A to B.

    Intermediate minima are removed one by one (graph transformation), in an arithmetic without
    subtractions: exact to rounding however far the rates spread, where a linear solver fails.

    Parameters
    ----------
    rates
        ``[n, n]``, from i to j; the diagonal is ignored.
    a, b
        Positions of the minima of the two sets.
    weights
        Of the minima of A in the means; equal by default. Pass equilibrium occupations for the
        phenomenological rate constants.

    Raises
    ------
    LandscapeError
        The sets are empty or overlap, a rate is negative, or B cannot be reached.

    References
    ----------
    Trygubenko and Wales 2006 (graph transformation); Wales 2009 (rates from it).

    Examples
    --------
    >>> import numpy as np
    >>> result = passage(np.ones((3, 3)), [0], [1])
    >>> round(result.rate, 12), round(result.steady, 12)
    (1.0, 1.5)
    """
    rates = np.array(rates, float)
    np.fill_diagonal(rates, 0.0)
    a, b = list(map(int, a)), list(map(int, b))
    _check(rates, a, b)
    weight = np.full(len(a), 1 / len(a)) if weights is None else np.asarray(weights, float)
    weight = weight / weight.sum()
    mfpt = _first_passages(rates, b)[a]
    if not np.isfinite(mfpt).all():
        lost = [start for start, time in zip(a, mfpt, strict=True) if not np.isfinite(time)]
        msg = f"B cannot be reached from minima {lost}; connect the network first."
        raise LandscapeError(msg)
    committor = _committor(rates, a, b)
    flux = rates[a] @ committor
    return Passage(float(weight @ (1 / mfpt)), float(weight @ flux), mfpt, committor)


def _first_passages(rates: np.ndarray, target: list[int]) -> np.ndarray:
    """Mean times to reach a set from everywhere [n]; infinite where it cannot be reached."""
    times = np.zeros(len(rates))
    for node, onward, waiting in reversed(_eliminated(rates, target)):
        to = onward > 0
        times[node] = waiting + onward[to] @ times[to]
    return times


def _committor(rates: np.ndarray, a: list[int], b: list[int]) -> np.ndarray:
    """Probability to reach B before A from everywhere [n]."""
    committor = np.zeros(len(rates))
    committor[b] = 1.0
    for node, onward, _ in reversed(_eliminated(rates, [*a, *b])):
        committor[node] = onward @ committor
    return committor


def _eliminated(rates: np.ndarray, kept: list[int]) -> list[tuple[int, np.ndarray, float]]:
    """Remove all other minima one by one (graph transformation).

    For each its position, the probabilities with which it is left towards those that remained
    then, and the mean time until it is. Solved backwards they give everything about minima that
    were removed.
    """
    n = len(rates)
    escape = rates.sum(axis=1)
    alive = escape > 0
    probability = rates / np.where(alive, escape, 1.0)[:, None]
    waiting = np.where(alive, 1 / np.where(alive, escape, 1.0), np.inf)
    removed = []
    for node in _order(rates, [i for i in range(n) if i not in kept]):
        onward = np.array(probability[node])
        onward[node] = 0.0
        # 1 - P[node, node] as a sum of what leaves, so that nothing cancels.
        leaves = onward.sum()
        if leaves > 0:
            onward /= leaves
            stay = waiting[node] / leaves
        else:
            stay = np.inf
        removed.append((node, onward, float(stay)))
        into = np.array(probability[:, node])
        into[node] = 0.0
        probability[:, node] = 0.0
        probability[node] = 0.0
        probability += into[:, None] * onward[None]
        reached = into > 0
        waiting[reached] += into[reached] * stay
    return removed


def _order(rates: np.ndarray, nodes: list[int]) -> list[int]:
    """Minima with few neighbours first, so that few new connections arise."""
    degree = (rates > 0).sum(axis=1)
    return sorted(nodes, key=lambda i: (degree[i], i))


def _check(rates: np.ndarray, a: list[int], b: list[int]) -> None:
    n = len(rates)
    if rates.ndim != 2 or rates.shape != (n, n) or not (rates >= 0).all():
        msg = f"rates has shape {rates.shape}; expected [n, n] without negative entries."
        raise LandscapeError(msg)
    inside = all(0 <= i < n for i in (*a, *b))
    if not a or not b or set(a) & set(b) or not inside:
        msg = (
            f"A = {a} and B = {b}; expected two sets without common members, not empty, of "
            f"positions from 0 to {n - 1}."
        )
        raise LandscapeError(msg)
