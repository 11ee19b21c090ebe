"""topsearch on the loss of the XOR network, in a process of its own.

``python -m studies.benchmarks._topsearch FOLDER SEED STEPS NEIGHBOURS`` by the interpreter of the
environment that holds topsearch; writes ``found.npz`` to the folder, in which topsearch also keeps
its log. NEIGHBOURS 0 stops after basin hopping. Nothing of ntkstats is imported.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

import numpy as np
from topsearch.data.coordinates import StandardCoordinates
from topsearch.data.kinetic_transition_network import KineticTransitionNetwork
from topsearch.global_optimisation.basin_hopping import BasinHopping
from topsearch.global_optimisation.perturbations import StandardPerturbation
from topsearch.potentials.potential import Potential
from topsearch.sampling.exploration import NetworkSampling
from topsearch.similarity.similarity import StandardSimilarity
from topsearch.transition_states.hybrid_eigenvector_following import HybridEigenvectorFollowing
from topsearch.transition_states.nudged_elastic_band import NudgedElasticBand

HIDDEN, L2 = 2, 1e-2
DIM = 5 * HIDDEN + 2
TOLERANCE = 1e-9
_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
_TARGET = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])


class Loss(Potential):  # type: ignore[misc]  # only its own environment knows it
    """Cross-entropy with weight decay and its gradient, by hand in NumPy."""

    def function_gradient(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient [d]."""
        w1 = position[: 2 * HIDDEN].reshape(HIDDEN, 2)
        w2 = position[2 * HIDDEN : 4 * HIDDEN].reshape(2, HIDDEN)
        h = np.tanh(_X @ w1.T + position[4 * HIDDEN : 5 * HIDDEN])
        logits = h @ w2.T + position[5 * HIDDEN :]
        logits = logits - logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(axis=1, keepdims=True)
        value = -(_TARGET * (logits - np.log(total))).sum() / 4 + L2 * (position @ position)
        off = (odds / total - _TARGET) / 4
        back = (off @ w2) * (1 - h * h)
        parts = (back.T @ _X, off.T @ h, back.sum(axis=0), off.sum(axis=0))
        return value, np.concatenate([part.ravel() for part in parts]) + 2 * L2 * position

    def function(self, position: np.ndarray) -> float:
        """Value."""
        return self.function_gradient(position)[0]

    def gradient(self, position: np.ndarray, displacement: float = 0.0) -> np.ndarray:
        """Gradient [d], exact: topsearch differences values unless told."""
        del displacement
        return self.function_gradient(position)[1]


class Timed(StandardSimilarity):  # type: ignore[misc]
    """The usual test for new points, which also notes when a transition state came."""

    def __init__(self, *settings: float) -> None:
        super().__init__(*settings)
        self.seen: list[tuple[float, np.ndarray]] = []

    def test_new_ts(self, network: Any, coords: Any, *found: Any) -> None:
        """Note a transition state, then do as usual."""
        self.seen.append((cpu_seconds(), np.array(coords.position)))
        super().test_new_ts(network, coords, *found)


def cpu_seconds() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(folder: str, seed: int, steps: int, neighbours: int) -> None:
    """Hop, connect, save."""
    os.chdir(folder)
    np.random.seed(seed)  # noqa: NPY002 - what topsearch draws from
    loss, network = Loss(), KineticTransitionNetwork()
    coords = StandardCoordinates(DIM, [(-10.0, 10.0)] * DIM)
    same = Timed(0.05, 1e-6)
    hopping = BasinHopping(
        ktn=network, potential=loss, similarity=same, step_taking=StandardPerturbation(10.0)
    )
    following = HybridEigenvectorFollowing(
        potential=loss, ts_conv_crit=TOLERANCE, ts_steps=75, pushoff=0.1,
        steepest_descent_conv_crit=TOLERANCE,
    )  # fmt: skip
    band = NudgedElasticBand(
        potential=loss, force_constant=50.0, image_density=10.0, max_images=20, neb_conv_crit=1e-2
    )
    sampling = NetworkSampling(
        ktn=network, coords=coords, global_optimiser=hopping, single_ended_search=following,
        double_ended_search=band, similarity=same,
    )  # fmt: skip
    loss.function_gradient(coords.position)
    start = cpu_seconds()
    sampling.get_minima(coords, steps, TOLERANCE, 1.0)
    hopped = cpu_seconds() - start
    minima = [network.get_minimum_coords(i) for i in range(network.n_minima)]
    if neighbours:
        sampling.get_transition_states("ClosestEnumeration", neighbours)
    stored = [network.get_ts_coords(a, b) for a, b in network.G.edges()]
    np.savez(
        "found.npz",
        hopped=hopped,
        minima=np.reshape(minima, (-1, DIM)),
        theta=np.reshape([theta for _, theta in same.seen], (-1, DIM)),
        seconds=np.array([at - start for at, _ in same.seen]),
        total=cpu_seconds() - start,
        stored=np.reshape(stored, (-1, DIM)),
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
