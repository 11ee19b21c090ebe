"""Which pairs of minima to try to connect next."""

from __future__ import annotations

import heapq
from typing import Literal, TypeAlias, get_args

import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.landscape._matching import align
from ntkstats.landscape._network import Network
from ntkstats.landscape._symmetry import Symmetry
from ntkstats.landscape._tree import barrier_heights

Strategy: TypeAlias = Literal["shortest", "unconnected", "untrap"]


def missing_pairs(
    network: Network, symmetry: Symmetry, *, strategy: Strategy = "shortest", count: int = 10
) -> list[tuple[int, int]]:
    """Choose pairs of minima between which a transition state is most worth looking for.

    Distances are between nearest images under the symmetry.

    Parameters
    ----------
    network
        With coordinates.
    symmetry
        Of the problem.
    strategy
        ``"shortest"``: the gaps in the shortest paths from the lowest minimum to all others, where
        known steps cost nothing and a gap costs its distance squared. ``"unconnected"``: for each
        part of the network without the lowest minimum, the nearest pair across. ``"untrap"``: for
        minima with the largest ratio of barrier to depth, the nearest lower minimum.
    count
        At most so many.

    Returns
    -------
    list of (int, int)
        Positions in ``network.minima``, best first.

    Raises
    ------
    LandscapeError
        Unknown strategy, or a network without coordinates.

    References
    ----------
    Carr, Trygubenko and Wales 2005 (missing connections by Dijkstra's algorithm); Strodel,
    Whittleston and Wales 2007 (untrapping).

    Examples
    --------
    >>> import numpy as np
    >>> from ntkstats.landscape import Symmetry, network_from_arrays
    >>> place = np.array([[0.0], [1.0], [5.0]])
    >>> network = network_from_arrays([0.0, 0.1, 0.2], [1.0], [[0, 1]], theta=place)
    >>> missing_pairs(network, Symmetry())
    [(1, 2)]
    """
    if strategy not in get_args(Strategy):
        msg = f"strategy={strategy!r}; expected one of {get_args(Strategy)}."
        raise LandscapeError(msg)
    if network.minima.theta is None:
        msg = "the network has no coordinates (it was read from numbers only); distances need them."
        raise LandscapeError(msg)
    if len(network.minima) < 2:
        return []
    distance = distances(network.minima.theta, symmetry)
    heights = barrier_heights(network)
    pairs = {"shortest": _gaps, "unconnected": _across, "untrap": _trapped}[strategy](
        network, distance, heights
    )
    return pairs[:count]


def distances(thetas: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """Distances [n, n] between nearest images of points [n, d]."""
    n = len(thetas)
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            found[i, j] = found[j, i] = align(symmetry, thetas[i], thetas[j]).distance
    return found


def _linked(network: Network) -> np.ndarray:
    n = len(network.minima)
    linked = np.eye(n, dtype=bool)
    a, b = network.ends[network.connected].T
    linked[a, b] = linked[b, a] = True
    return linked


def _gaps(network: Network, distance: np.ndarray, heights: np.ndarray) -> list[tuple[int, int]]:
    del heights
    linked = _linked(network)
    weight = np.where(linked, 0.0, distance**2)
    n = len(weight)
    start = int(np.argmin(network.minima.energy))
    cost, before = np.full(n, np.inf), np.full(n, -1)
    cost[start] = 0.0
    heap = [(0.0, start)]
    while heap:
        so_far, i = heapq.heappop(heap)
        if so_far > cost[i]:
            continue
        for j in np.flatnonzero(so_far + weight[i] < cost - 1e-15):
            cost[j], before[j] = so_far + weight[i, j], i
            heapq.heappush(heap, (float(cost[j]), int(j)))
    gaps = {
        (min(int(before[j]), j), max(int(before[j]), j))
        for j in range(n)
        if before[j] >= 0 and not linked[before[j], j]
    }
    return sorted(gaps, key=lambda pair: distance[pair])


def _across(network: Network, distance: np.ndarray, heights: np.ndarray) -> list[tuple[int, int]]:
    main = np.isfinite(heights[int(np.argmin(network.minima.energy))])
    inside, outside = np.flatnonzero(main), np.flatnonzero(~main)
    pairs = []
    while outside.size:
        part = outside[np.isfinite(heights[outside[0], outside])]
        block = distance[np.ix_(inside, part)]
        i, j = np.unravel_index(int(np.argmin(block)), block.shape)
        a, b = int(inside[i]), int(part[j])
        pairs.append((min(a, b), max(a, b)))
        outside = np.setdiff1d(outside, part)
    return sorted(pairs, key=lambda pair: distance[pair])


def _trapped(network: Network, distance: np.ndarray, heights: np.ndarray) -> list[tuple[int, int]]:
    energy = network.minima.energy
    best = int(np.argmin(energy))
    linked = _linked(network)
    ranked = []
    for i in range(len(energy)):
        lower = np.flatnonzero((energy < energy[i]) & ~linked[i])
        if i == best or not lower.size:
            continue
        ratio = (heights[i, best] - energy[i]) / max(energy[i] - energy[best], 1e-300)
        j = int(lower[np.argmin(distance[i, lower])])
        ranked.append((-ratio, (min(i, j), max(i, j))))
    return [pair for _, pair in sorted(ranked)]
