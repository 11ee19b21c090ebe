"""Landscapes with known answers, for tests, examples and comparisons."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.landscape._problem import Problem
from ntkstats.landscape._symmetry import Symmetry, Units
from ntkstats.typing import Array

_MB = np.array(
    [
        [-200.0, -1.0, 0.0, -10.0, 1.0, 0.0],
        [-100.0, -1.0, 0.0, -10.0, 0.0, 0.5],
        [-170.0, -6.5, 11.0, -6.5, -0.5, 1.5],
        [15.0, 0.7, 0.6, 0.7, -1.0, 1.0],
    ]
)


@lru_cache(maxsize=1)
def mueller_brown() -> Problem:
    """Surface of Müller and Brown (1979): two coordinates, 3 minima, 2 transition states.

    References
    ----------
    Müller and Brown 1979, "Location of saddle points and minimum energy paths by a constrained
    simplex optimization procedure".

    Examples
    --------
    >>> mueller_brown().dim
    2
    """

    def loss(theta: Array) -> Array:
        theta = jnp.asarray(theta)
        height, a, b, c, x0, y0 = jnp.asarray(_MB.T, theta.dtype)
        x, y = theta[0] - x0, theta[1] - y0
        return jnp.sum(height * jnp.exp(a * x * x + b * x * y + c * y * y))

    def sample(key: Array, n: int) -> Array:
        low, high = jnp.array([-1.5, -0.3]), jnp.array([1.2, 2.0])
        return jax.random.uniform(key, (n, 2), minval=low, maxval=high)

    return Problem(loss, 2, sample=sample, name="Müller-Brown")


@lru_cache(maxsize=1)
def six_hump_camel() -> Problem:
    """Six-hump camel function: 6 minima, 7 transition states, 2 maxima.

    References
    ----------
    Dixon and Szegő 1978, "Towards global optimization 2".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(six_hump_camel().loss(jnp.zeros(2)))
    0.0
    """

    def loss(theta: Array) -> Array:
        x, y = theta
        return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (-4 + 4 * y**2) * y**2

    def sample(key: Array, n: int) -> Array:
        return jax.random.uniform(key, (n, 2), minval=-1, maxval=1) * jnp.array([2.2, 1.2])

    return Problem(loss, 2, sample=sample, name="six-hump camel")


@lru_cache(maxsize=8)
def lennard_jones(atoms: int) -> Problem:
    """Cluster of Lennard-Jones atoms in reduced units, ``4 sum (r^-12 - r^-6)``.

    Equal up to permutation of atoms, rotation, reflection and translation; two clusters with the
    same energy, spectrum and sorted distances count as one. Orbit sizes are not computed (all 1).

    Parameters
    ----------
    atoms
        Number of atoms, at least 3.

    Raises
    ------
    LandscapeError
        Too few atoms.

    Examples
    --------
    >>> lennard_jones(7).dim
    21
    """
    if not isinstance(atoms, int) or atoms < 3:
        msg = f"atoms={atoms!r}; expected a whole number of at least 3."
        raise LandscapeError(msg)
    first, second = np.triu_indices(atoms, 1)

    def loss(theta: Array) -> Array:
        x = theta.reshape(atoms, 3)
        inverse = 1 / jnp.sum((x[first] - x[second]) ** 2, axis=-1) ** 3
        return 4 * jnp.sum(inverse * inverse - inverse)

    def zero_modes(theta: Array) -> Array:
        x = theta.reshape(atoms, 3)
        axes = jnp.eye(3, dtype=theta.dtype)
        shifts = jnp.broadcast_to(axes[:, None], (3, atoms, 3))
        turns = jnp.cross(axes[:, None], (x - x.mean(axis=0))[None])
        return jnp.concatenate([shifts, turns]).reshape(6, -1).T

    def invariants(theta: np.ndarray) -> np.ndarray:
        x = np.asarray(theta).reshape(atoms, 3)
        return np.sort(np.linalg.norm(x[first] - x[second], axis=-1))

    def sample(key: Array, n: int) -> Array:
        direction, radius = jax.random.split(key)
        x = jax.random.normal(direction, (n, atoms, 3))
        r = jax.random.uniform(radius, (n, atoms, 1)) ** (1 / 3)
        size = 0.75 * atoms ** (1 / 3)  # a little looser than a compact cluster
        return (size * r * x / jnp.linalg.norm(x, axis=-1, keepdims=True)).reshape(n, -1)

    return Problem(
        loss,
        3 * atoms,
        symmetry=Symmetry(invariants=invariants),
        zero_modes=zero_modes,
        sample=sample,
        name=f"LJ{atoms}",
    )


@lru_cache(maxsize=8)
def xor_network(hidden: int, l2: float) -> Problem:
    """The network that learns exclusive or: ``hidden`` tanh units, softmax, weight decay.

    Mean cross-entropy of the four patterns plus ``l2`` times the sum of all squared parameters,
    biases included. Parameters: input weights (hidden, 2), output weights (2, hidden), hidden
    biases, output biases; all in row-major order.

    Parameters
    ----------
    hidden
        Number of hidden units.
    l2
        Weight decay; with 0 the loss has no minimum at a finite place, and searches warn.

    Raises
    ------
    LandscapeError
        No hidden unit, or negative decay.

    References
    ----------
    Mehta, Zhao, Bernal and Wales 2018, "Loss surface of XOR artificial neural networks".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> problem = xor_network(2, 1e-2)
    >>> problem.dim, round(float(problem.loss(jnp.zeros(12))), 6)
    (12, 0.693147)
    """
    if not isinstance(hidden, int) or hidden < 1:
        msg = f"hidden={hidden!r}; expected a whole number of at least 1."
        raise LandscapeError(msg)
    if not l2 >= 0:
        msg = f"l2={l2!r}; expected a number that is not negative."
        raise LandscapeError(msg)
    ends = np.cumsum([2 * hidden, 2 * hidden, hidden])

    def loss(theta: Array) -> Array:
        theta = jnp.asarray(theta)
        x = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], theta.dtype)
        target = jnp.array([[1, 0], [0, 1], [0, 1], [1, 0]], theta.dtype)
        w1, w2, b1, b2 = jnp.split(theta, ends)
        h = jnp.tanh(x @ w1.reshape(hidden, 2).T + b1)
        logits = h @ w2.reshape(2, hidden).T + b2
        fit = -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))
        return fit + l2 * jnp.sum(theta * theta)

    unit = np.arange(hidden)[:, None]
    outward = 2 * hidden + hidden * np.arange(2)[None] + unit
    index = np.concatenate([2 * unit + np.arange(2)[None], 4 * hidden + unit, outward], axis=1)
    return Problem(
        loss,
        5 * hidden + 2,
        symmetry=Symmetry((Units(index, odd=True, incoming=3),)),
        name=f"XOR, {hidden} hidden units, l2 {l2:g}",
    )
