"""What is counted and measured of one landscape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from ntkstats import landscape
from ntkstats.landscape import Landscape, Network

TEMPERATURES = np.geomspace(1e-4, 1.0, 801)
_FEWEST = 5  # minima below which a rank correlation says nothing
_PROMINENT = 0.1  # of the equipartition value: what counts as a peak


class Passes(NamedTuple):
    """Transition states with both pathways, a row each.

    Attributes
    ----------
    id
        Where the landscape keeps them.
    barrier
        Loss above the higher of the two minima.
    change
        NTK entropy at the pass less the mean of that at the two minima.
    spread
        Largest less smallest entropy along the whole pathway.
    between
        Absolute difference of the entropies of the two minima.
    """

    id: np.ndarray
    barrier: np.ndarray
    change: np.ndarray
    spread: np.ndarray
    between: np.ndarray

    @property
    def low(self) -> np.ndarray:
        """Which barriers are not above the median of the landscape."""
        return self.barrier <= np.median(self.barrier) if self.barrier.size else self.barrier > 0


class Measured(NamedTuple):
    """Numbers of one landscape; NaN where there is nothing to measure."""

    minima: int
    minima_raw: int
    saddles: int
    morse_sum: int | None
    parts: int
    unseen: float
    peaks: int
    peak_temperature: float
    peak_height: float
    lowest_entropy: float
    lowest_accuracy: float
    mean_accuracy: float
    best_accuracy: float
    energy_accuracy: float
    entropy_accuracy: float
    low_change: float
    high_change: float
    low_spread: float
    high_spread: float
    low_between: float


def measured(scape: Landscape) -> Measured:
    """Count and measure a landscape."""
    network, verdict = scape.network(), scape.check()
    lowest = network.minima.observed
    accuracy = lowest.get("test_accuracy", np.full(len(network.minima), np.nan))
    entropy = lowest["ntk_entropy"]
    temperature, height, peaks = heat_peak(network)
    rows = passes(scape)
    low, high = rows.low, ~rows.low
    return Measured(
        minima=len(network.minima),
        minima_raw=int(sum(network.minima.orbit)),
        saddles=len(network.saddles),
        morse_sum=verdict.morse_sum,
        parts=verdict.pieces,
        unseen=float(verdict.unseen),
        peaks=peaks,
        peak_temperature=temperature,
        peak_height=height,
        lowest_entropy=float(entropy[0]),
        lowest_accuracy=float(accuracy[0]),
        mean_accuracy=float(accuracy.mean()),
        best_accuracy=float(accuracy.max()),
        energy_accuracy=ranked(network.minima.energy, accuracy),
        entropy_accuracy=ranked(entropy, accuracy),
        low_change=_mean(rows.change[low]),
        high_change=_mean(rows.change[high]),
        low_spread=_mean(rows.spread[low]),
        high_spread=_mean(rows.spread[high]),
        low_between=_mean(rows.between[low]),
    )


def excess(network: Network) -> np.ndarray:
    """Heat capacity above equipartition at `TEMPERATURES`, per half parameter."""
    found = landscape.heat_capacity(network, TEMPERATURES)
    half = (network.dim - int(network.minima.n_zero[0])) / 2
    return np.asarray(found.heat_capacity / half - 1)


def heat_peak(network: Network) -> tuple[float, float, int]:
    """Temperature and height of the highest peak of the heat capacity, and how many there are.

    The height is in units of equipartition (one for each half parameter).
    """
    curve = excess(network)
    inner = (curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:]) & (curve[1:-1] > _PROMINENT)
    places = 1 + np.flatnonzero(inner)
    if not places.size:
        return float("nan"), float("nan"), 0
    top = places[np.argmax(curve[places])]
    return float(TEMPERATURES[top]), float(1 + curve[top]), len(places)


def passes(scape: Landscape) -> Passes:
    """Barriers and entropies of every transition state with both pathways."""
    network = scape.network()
    rows = []
    for j in np.flatnonzero(network.connected):
        saddle = int(network.saddles.id[j])
        sides = [scape.path(saddle, side) for side in (-1, 1)]
        along = np.concatenate([side.observed["ntk_entropy"] for side in sides if side is not None])
        ends = network.ends[j]
        at_ends = network.minima.observed["ntk_entropy"][ends]
        barrier = network.saddles.energy[j] - network.minima.energy[ends].max()
        top = network.saddles.observed["ntk_entropy"][j]
        rows.append(
            (saddle, barrier, top - at_ends.mean(), np.ptp(along), abs(at_ends[0] - at_ends[1]))
        )
    table = np.array(rows, float).reshape(-1, 5)
    return Passes(table[:, 0].astype(int), *table[:, 1:].T)


def ranked(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation over minima; NaN for few minima or equal values."""
    if len(a) < _FEWEST or np.ptp(a) == 0 or not np.ptp(b) > 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
