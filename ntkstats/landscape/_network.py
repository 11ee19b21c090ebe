"""The network of minima and transition states, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ntkstats.errors import DependencyError, LandscapeError


@dataclass(frozen=True, eq=False)
class Nodes:
    """Stationary points of one kind, a row each.

    Attributes
    ----------
    id
        Where the landscape keeps them [n].
    energy
        The loss [n].
    log_det
        Sum of the logarithms of the positive curvatures [n].
    orbit
        Number of distinct images under the symmetry [n]; Python integers, since it may be huge.
    index, n_zero, hits
        Negative curvatures, flat directions, searches that arrived [n].
    lowest
        Lowest curvature [n].
    gradient
        Root mean square of the gradient [n].
    theta
        Coordinates [n, d]; None if only numbers are known (from files).
    observed
        ``{name: [n]}`` of `Problem.observe`.
    """

    id: np.ndarray
    energy: np.ndarray
    log_det: np.ndarray
    orbit: np.ndarray
    index: np.ndarray
    n_zero: np.ndarray
    hits: np.ndarray
    lowest: np.ndarray
    gradient: np.ndarray
    theta: np.ndarray | None = None
    observed: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.energy)


@dataclass(frozen=True, eq=False)
class Network:
    """Minima joined by transition states.

    Attributes
    ----------
    minima
        Sorted by energy.
    saddles
        Transition states, sorted by energy.
    ends
        For each transition state the two minima it leads to, as positions in ``minima`` [m, 2];
        -1 where a pathway is not known. Several transition states may join the same two minima,
        and one may join a minimum with an image of itself.
    dim
        Number of parameters.
    name
        Of the problem.
    """

    minima: Nodes
    saddles: Nodes
    ends: np.ndarray
    dim: int
    name: str = "landscape"

    def __post_init__(self) -> None:
        ends = np.asarray(self.ends, int).reshape(-1, 2)
        if len(ends) != len(self.saddles):
            msg = (
                f"ends has {len(ends)} rows for {len(self.saddles)} transition states; expected "
                "one row each."
            )
            raise LandscapeError(msg)
        if ends.size and (ends.min() < -1 or ends.max() >= len(self.minima)):
            msg = (
                f"ends names minima from {ends.min()} to {ends.max()}; expected positions from 0 "
                f"to {len(self.minima) - 1}, or -1 for unknown."
            )
            raise LandscapeError(msg)
        object.__setattr__(self, "ends", ends)

    @property
    def connected(self) -> np.ndarray:
        """Which transition states have both pathways [m]."""
        return np.asarray((self.ends >= 0).all(axis=1))

    def to_networkx(self) -> Any:
        """A `networkx.MultiGraph`: nodes are positions of minima, keys those of saddles.

        Nodes carry ``energy``, ``log_det``, ``orbit``, ``hits`` and what was observed; edges
        ``energy``, ``log_det``, ``orbit``, ``lowest`` and ``degenerate`` (a minimum with an image
        of itself). Unconnected transition states are left out.

        Raises
        ------
        DependencyError
            networkx is not installed.
        """
        try:
            import networkx
        except ImportError as error:
            msg = (
                "to_networkx needs the package networkx, which is not installed; "
                "pip install 'ntkstats[landscape]'."
            )
            raise DependencyError(msg) from error
        graph = networkx.MultiGraph(name=self.name, dim=self.dim)
        for i in range(len(self.minima)):
            graph.add_node(i, hits=int(self.minima.hits[i]), **_row(self.minima, i))
        for j in map(int, np.flatnonzero(self.connected)):
            a, b = map(int, self.ends[j])
            facts = _row(self.saddles, j)
            graph.add_edge(
                a, b, key=j, lowest=float(self.saddles.lowest[j]), degenerate=a == b, **facts
            )
        return graph


def _row(nodes: Nodes, i: int) -> dict[str, Any]:
    return {
        "energy": float(nodes.energy[i]),
        "log_det": float(nodes.log_det[i]),
        "orbit": int(nodes.orbit[i]),
        **{name: float(values[i]) for name, values in nodes.observed.items()},
    }


def network_from_arrays(
    minima: Any,
    saddles: Any,
    ends: Any,
    *,
    minima_log_det: Any = None,
    saddles_log_det: Any = None,
    minima_orbit: Any = None,
    saddles_orbit: Any = None,
    dim: int = 1,
    theta: np.ndarray | None = None,
    saddles_theta: np.ndarray | None = None,
    name: str = "landscape",
) -> Network:
    """A network from numbers alone: energies, log-determinants, orbit sizes, connections.

    Minima keep the order they are given in.

    Parameters
    ----------
    minima, saddles
        Energies [n] and [m].
    ends
        Positions of the two minima of each transition state [m, 2].
    minima_log_det, saddles_log_det
        Sums of the logarithms of the positive curvatures [n], [m]; NaN if left out.
    minima_orbit, saddles_orbit
        Orbit sizes; 1 if left out.
    dim
        Number of parameters.
    theta, saddles_theta
        Coordinates of the minima [n, d] and transition states [m, d], if known.
    name
        What it is called in figures.

    Raises
    ------
    LandscapeError
        The arrays do not fit together.

    Examples
    --------
    >>> network = network_from_arrays([0.0, 0.5], [1.0], [[0, 1]])
    >>> len(network.minima), network.connected
    (2, array([ True]))
    """
    return Network(
        _numbers(minima, minima_log_det, minima_orbit, 0, theta),
        _numbers(saddles, saddles_log_det, saddles_orbit, 1, saddles_theta),
        np.asarray(ends, int).reshape(-1, 2),
        dim,
        name,
    )


def _numbers(energy: Any, log_det: Any, orbit: Any, index: int, theta: np.ndarray | None) -> Nodes:
    energy = np.asarray(energy, float)
    n = len(energy)
    nan = np.full(n, np.nan)
    sizes = np.empty(n, object)
    sizes[:] = [1] * n if orbit is None else [int(size) for size in orbit]
    log_det = nan if log_det is None else np.asarray(log_det, float)
    if log_det.shape != (n,):
        msg = f"{len(log_det)} log-determinants for {n} energies; expected one each."
        raise LandscapeError(msg)
    whole = np.zeros(n, int)
    return Nodes(np.arange(n), energy, log_det, sizes, whole + index, whole, whole, nan, nan, theta)
