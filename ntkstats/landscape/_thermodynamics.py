"""Heat capacity of a landscape: harmonic superposition over its minima."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.landscape._network import Network, Nodes


class Thermodynamics(NamedTuple):
    """Equilibrium at each temperature, in the harmonic approximation.

    Attributes
    ----------
    temperature
        [t], in units of the loss.
    energy
        Mean loss U [t], configurational.
    heat_capacity
        dU/dT [t], configurational (``d / 2`` for one harmonic minimum).
    occupation
        Probability of each minimum with all its images [t, n].
    """

    temperature: np.ndarray
    energy: np.ndarray
    heat_capacity: np.ndarray
    occupation: np.ndarray


def heat_capacity(
    network: Network, temperature: np.ndarray, *, dim: int | None = None
) -> Thermodynamics:
    """Superpose harmonic minima, each with its orbit size.

    ``w_a ~ o_a exp(-E_a / T) prod(curvatures)^(-1/2)``; ``U = <E> + T k / 2``;
    ``C = k / 2 + var(E) / T^2``, where k is the number of curvatures that are not zero.

    Parameters
    ----------
    network
        With log-determinants.
    temperature
        Where [t].
    dim
        k; by default the dimension less the flat directions of the lowest minimum.

    Raises
    ------
    LandscapeError
        A temperature is not positive, there is no minimum, or log-determinants are not known.

    References
    ----------
    Wales 2003, "Energy Landscapes", chapter 7.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkstats.landscape import network_from_arrays
    >>> network = network_from_arrays([0.0], [], [], minima_log_det=[0.0], dim=12)
    >>> heat_capacity(network, np.array([0.1, 1.0])).heat_capacity
    array([6., 6.])
    """
    temperature = np.atleast_1d(np.asarray(temperature, float))
    if not temperature.size or not (temperature > 0).all():
        msg = f"temperature={temperature}; expected positive numbers."
        raise LandscapeError(msg)
    minima = known(network)
    if dim is None:
        lowest = int(np.argmin(minima.energy))
        dim = network.dim - int(minima.n_zero[lowest])
    beta = 1 / temperature[:, None]
    log_weight = log_partition(minima, beta)
    occupation = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    occupation /= occupation.sum(axis=1, keepdims=True)
    mean = occupation @ minima.energy
    spread = (occupation * (minima.energy[None] - mean[:, None]) ** 2).sum(axis=1)
    energy = mean + dim * temperature / 2
    return Thermodynamics(temperature, energy, dim / 2 + spread / temperature**2, occupation)


def log_partition(nodes: Nodes, beta: np.ndarray) -> np.ndarray:
    """Logarithms of the weights of stationary points, up to a constant, at inverse temperatures."""
    orbit = np.array([log_of(size) for size in nodes.orbit])
    return orbit - beta * nodes.energy - nodes.log_det / 2


def log_of(size: int) -> float:
    """Logarithm of a whole number of any size."""
    shift = max(int(size).bit_length() - 900, 0)
    return float(np.log(float(int(size) >> shift)) + shift * np.log(2.0))


def known(network: Network) -> Nodes:
    """The minima, if they can be weighted."""
    if not len(network.minima):
        msg = "the network holds no minimum; search for minima first."
        raise LandscapeError(msg)
    if not np.isfinite(network.minima.log_det).all():
        msg = (
            "log-determinants of minima are not known (beyond 256 parameters only a part of the "
            "curvatures is computed); harmonic weights need them all."
        )
        raise LandscapeError(msg)
    return network.minima
