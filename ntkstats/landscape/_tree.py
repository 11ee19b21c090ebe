"""Disconnectivity graphs: which minima can reach each other below a level."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.landscape._network import Network

_SAME = 1e-9  # transition states that a symmetry of the data exchanges differ by rounding


class Tree(NamedTuple):
    """The merge tree of a network; all levels at once.

    Leaves are the minima, ``0 .. n-1``; every further node is where two or more branches merge.

    Attributes
    ----------
    parent
        Node above each node; -1 for roots (several, if the network is in pieces) [nodes].
    level
        Energy of each node: of the minimum, or of the lowest transition state that joins its
        branches [nodes].
    leaves
        Number of minima at or below each node [nodes].
    position
        Horizontal place of each node: branches side by side, deep ones in the middle [nodes].
    orbit
        Orbit sizes of the minima [n].
    name
        Of the problem.
    """

    parent: np.ndarray
    level: np.ndarray
    leaves: np.ndarray
    position: np.ndarray
    orbit: np.ndarray
    name: str


def disconnectivity(network: Network) -> Tree:
    """Build the disconnectivity graph of a network.

    Union-find over transition states in the order of their energies; the level at which two
    minima merge is the lowest maximum over all paths between them.

    Parameters
    ----------
    network
        From `Landscape.network` or a file.

    Raises
    ------
    LandscapeError
        There is no minimum.

    References
    ----------
    Becker and Karplus 1997, "The topology of multidimensional potential energy surfaces"; Wales,
    Miller and Walsh 1998, "Archetypal energy landscapes".

    Examples
    --------
    >>> import jax
    >>> from ntkstats import landscape
    >>> scape = landscape.Landscape(landscape.mueller_brown())
    >>> _ = scape.find_minima(key=jax.random.key(0), starts=60)
    >>> _ = scape.find_saddles(key=jax.random.key(1), starts=60)
    >>> _ = scape.connect()
    >>> tree = disconnectivity(scape.network())
    >>> [round(float(level), 3) for level in tree.level]
    [-146.7, -108.167, -80.768, -72.249, -40.665]
    """
    n = len(network.minima)
    if n == 0:
        msg = "the network holds no minimum; search for minima first."
        raise LandscapeError(msg)
    parent, level, leaves = [-1] * n, list(network.minima.energy), [1] * n
    top = list(range(n))  # of each minimum, the node highest above it so far

    def root(node: int) -> int:
        while parent[node] >= 0:
            node = parent[node]
        return node

    order = np.argsort(network.saddles.energy, kind="stable")
    for j in order:
        a, b = network.ends[j]
        if a < 0 or b < 0:
            continue
        here, there = (root(top[i]) for i in (a, b))
        if here == there:
            continue
        energy = float(network.saddles.energy[j])
        # A branch that merged at this very level takes another one in instead of a new node.
        near = _SAME * max(1.0, abs(energy))
        open_ = [node for node in (here, there) if node >= n and energy - level[node] <= near]
        if open_:
            joint = open_[0]
            other = there if joint == here else here
            leaves[joint] += leaves[other]
            parent[other] = joint
            top[a] = top[b] = joint
            continue
        parent += [-1]
        level += [energy]
        leaves += [leaves[here] + leaves[there]]
        parent[here] = parent[there] = len(parent) - 1
        top[a] = top[b] = len(parent) - 1
    position = _positions(np.array(parent), np.array(level), np.array(leaves))
    orbit = network.minima.orbit
    return Tree(np.array(parent), np.array(level), np.array(leaves), position, orbit, network.name)


def _positions(parent: np.ndarray, level: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Every branch as wide as it has leaves, its deepest one as near its middle as possible."""
    below: list[list[int]] = [[] for _ in parent]
    deepest = np.array(level)
    for node, above in enumerate(parent):  # children come before their parents
        below[node].sort(key=lambda child: (deepest[child], child))
        if below[node]:
            deepest[node] = deepest[below[node][0]]
        if above >= 0:
            below[above].append(node)
    roots = sorted(map(int, np.flatnonzero(parent < 0)), key=lambda node: deepest[node])
    position = np.zeros(len(parent))
    total = float(leaves[roots].sum())
    stack = list(_laid_out(roots, leaves, 0.0, total / 2))
    order = []
    while stack:
        node, left, target = stack.pop()
        position[node] = left + leaves[node] / 2
        order.append(node)
        stack += _laid_out(below[node], leaves, left, target)
    for node in reversed(order):
        # A straight stem down to the deepest minimum; only a lone pair parts evenly.
        if leaves[node] > 2:
            position[node] = position[below[node][0]]
    return position


def _laid_out(
    nodes: list[int], leaves: np.ndarray, left: float, target: float
) -> list[tuple[int, float, float]]:
    """Siblings, the deepest first, side by side from ``left``: node, left edge, where to aim.

    The others go to whichever side moves the deepest towards the target.
    """
    if not nodes:
        return []
    main, *others = nodes
    before: list[int] = []
    after: list[int] = []
    edge = left
    for node in others:
        if edge + leaves[main] / 2 < target - leaves[node] / 2:
            before.append(node)
            edge += leaves[node]
        else:
            after.insert(0, node)
    placed = []
    for node in (*before, main, *after):
        middle = left + leaves[node] / 2
        placed.append((node, left, target if node == main else middle))
        left += leaves[node]
    return placed


def barrier_heights(network: Network) -> np.ndarray:
    """Level at which each pair of minima first connects [n, n]; infinite if it does not.

    The diagonal holds the minima themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkstats.landscape import network_from_arrays
    >>> network = network_from_arrays([0.0, 0.5], [1.0], [[0, 1]])
    >>> barrier_heights(network)
    array([[0. , 1. ],
           [1. , 0.5]])
    """
    n = len(network.minima)
    heights = np.full((n, n), np.inf)
    np.fill_diagonal(heights, network.minima.energy)
    members = [[i] for i in range(n)]
    group = list(range(n))
    for j in np.argsort(network.saddles.energy, kind="stable"):
        a, b = network.ends[j]
        if a < 0 or b < 0 or group[a] == group[b]:
            continue
        mine, theirs = members[group[a]], members[group[b]]
        heights[np.ix_(mine, theirs)] = heights[np.ix_(theirs, mine)] = network.saddles.energy[j]
        kept = group[a]
        for i in theirs:
            group[i] = kept
        members[kept] = mine + theirs
    return heights
