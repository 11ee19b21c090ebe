"""Densities in two dimensions whose normalisation is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from ntkstats.typing import Array

Domain = Literal["plane", "torus"]

_GRID = 1024


class Target(NamedTuple):
    """A density exp(-S(x)) / Z.

    Attributes
    ----------
    domain
        ``"plane"``, or ``"torus"``: angles in [0, 2 pi).
    action
        ``S(x) -> (N,)`` of points ``(N, 2)``.
    log_z
        log Z, in closed form.
    reach
        A square of this half width holds all but 1e-9 of the plane's probability.
    """

    domain: Domain
    action: Callable[[Array], Array]
    log_z: float
    reach: float


def _mixture(x: Array) -> Array:
    centres = jnp.array([[1.5, 1.5], [1.5, -1.5], [-1.5, 1.5], [-1.5, -1.5]], x.dtype)
    square = ((x[:, None] - centres) ** 2).sum(-1)
    return -jax.nn.logsumexp(-square / (2 * _WIDTH**2), axis=1)


def _banana(x: Array) -> Array:
    bent = x[:, 1] - (x[:, 0] ** 2 - 1) / 2
    return x[:, 0] ** 2 / 2 + bent**2 / (2 * _WIDTH**2)


def _ring(x: Array) -> Array:
    radius = jnp.sqrt((x**2).sum(-1) + 1e-12)  # whose gradient exists at the origin
    return (radius - _RADIUS) ** 2 / (2 * _WIDTH**2)


def _torus(x: Array) -> Array:
    one, two = jnp.cos(x[:, 0]), jnp.cos(x[:, 1])
    return -(_FIELD * (one + two) + _COUPLING * jnp.cos(x[:, 0] - x[:, 1]))


_WIDTH, _RADIUS = 0.5, 2.0
_FIELD, _COUPLING = 1.0, -3.0

_GAUSS = 2 * math.pi * _WIDTH**2


def _ring_log_z() -> float:
    ratio = _RADIUS / _WIDTH
    bulk = math.sqrt(math.pi / 2) * ratio * (1 + math.erf(ratio / math.sqrt(2)))
    return math.log(_GAUSS * (math.exp(-(ratio**2) / 2) + bulk))


def _torus_log_z() -> float:
    # every factor exp(k cos) is a Fourier series of Bessel functions; the constant mode remains
    n = np.arange(-60, 61)
    terms = special.iv(n, _FIELD) ** 2 * special.iv(n, _COUPLING)
    return math.log((2 * math.pi) ** 2 * float(terms.sum()))


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "mixture": Target("plane", _mixture, math.log(4 * _GAUSS), 5.0),
        "banana": Target("plane", _banana, math.log(2 * math.pi * _WIDTH), 30.0),
        "ring": Target("plane", _ring, _ring_log_z(), 6.0),
        "torus": Target("torus", _torus, _torus_log_z(), math.pi),
    }
)
"""Four Gaussians; a bent Gaussian; a ring; the cosine model of two angles (Mardia et al., 2007)."""


def grid(target: Target, n: int = _GRID) -> tuple[np.ndarray, float]:
    """``(n * n, 2)`` midpoints of cells that cover the domain, and the area of a cell."""
    centre = math.pi if target.domain == "torus" else 0.0
    side = 2 * target.reach / n
    ticks = centre - target.reach + side * (np.arange(n) + 0.5)
    return np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1).reshape(-1, 2), side**2


def draw(target: Target, n: int, *, seed: int) -> np.ndarray:
    """``(n, 2)`` float32 points from the target: a cell by its weight, a place in it evenly."""
    points, area = grid(target)
    weight = np.exp(-np.asarray(target.action(jnp.asarray(points, jnp.float32)), np.float64))
    rng = np.random.default_rng(seed)
    chosen = points[rng.choice(len(points), n, p=weight / weight.sum())]
    return (chosen + math.sqrt(area) * (rng.random((n, 2)) - 0.5)).astype(np.float32)
