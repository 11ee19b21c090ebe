"""Stationary points as rows of arrays, and telling new ones from known ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64
from ntkstats.landscape._matching import orbit_size, same
from ntkstats.landscape._modes import DENSE_UP_TO, FLAT, orthonormal
from ntkstats.landscape._problem import Problem

_ENERGY = 1e-9  # relative: what polishing in float64 leaves
_SPECTRUM = 1e-5  # of the largest curvature


@dataclass(frozen=True, eq=False)
class Point:
    """A stationary point.

    Attributes
    ----------
    theta
        Coordinates [d], float64.
    energy
        The loss.
    gradient
        Root mean square of what is left of the gradient.
    index
        Number of negative curvatures: 0 for a minimum, 1 for a transition state.
    spectrum
        Curvatures, ascending, without declared zero modes; beyond 256 dimensions some of the
        lowest and largest only.
    n_zero
        Flat directions: declared ones and curvatures that are zero up to rounding.
    orbit
        Number of distinct images under the symmetry.
    observed
        ``{name: value}`` of `Problem.observe`.
    """

    theta: np.ndarray
    energy: float
    gradient: float
    index: int
    spectrum: np.ndarray
    n_zero: int
    orbit: int
    observed: dict[str, float]

    @property
    def lowest(self) -> float:
        """The lowest curvature."""
        return float(self.spectrum[0])

    @property
    def log_det(self) -> float:
        """Sum of the logarithms of the positive curvatures; NaN if only some are known."""
        if len(self.spectrum) + self.n_zero < self.theta.size:
            return float("nan")
        scale = max(1.0, float(np.abs(self.spectrum).max()))
        positive = self.spectrum[self.spectrum > ZERO * scale]
        return float(np.log(positive).sum())


ZERO = 1e-7
"""Curvatures below this share of the largest count as zero."""


def point_from(
    problem: Problem, theta: np.ndarray, energy: float, gradient: float, values: np.ndarray
) -> Point:
    """A row from what a search reports."""
    declared = int((values >= FLAT).sum())
    spectrum = np.asarray(values[values < FLAT], float)
    scale = max(1.0, float(np.abs(spectrum).max(initial=0)))
    flat = int((np.abs(spectrum) <= ZERO * scale).sum())
    index = int((spectrum < -ZERO * scale).sum())
    orbit = orbit_size(problem.symmetry, theta) if _counts(problem) else 1
    observed: dict[str, float] = {}
    if problem.dim > DENSE_UP_TO:
        declared = 0  # only directions that fell out of the Krylov space are marked there
    return Point(
        np.asarray(theta, float), float(energy), float(gradient), index, spectrum,
        declared + flat, orbit, observed,
    )  # fmt: skip


def _counts(problem: Problem) -> bool:
    return bool(problem.symmetry.layers) or problem.symmetry.orbit_size is not None


class Found(NamedTuple):
    """What a batch of converged searches amounts to.

    Attributes
    ----------
    owner
        For each search the known point it arrived at (its position), or, from ``len(known)`` on,
        the new one [n].
    new
        One search for each new point: its position in the batch.
    """

    owner: np.ndarray
    new: list[int]


def tell_apart(
    problem: Problem,
    known: list[Point],
    theta: np.ndarray,
    energy: np.ndarray,
    values: np.ndarray,
) -> Found:
    """Sort converged searches into known and new points.

    Equal energies first, then equal spectra, then coordinates up to the declared symmetry; the
    first two are cheap and never equal for different points unless the loss has a symmetry that
    was not declared (two points that such a symmetry exchanges stay two).

    Parameters
    ----------
    problem
        Whose symmetry counts.
    known
        Points so far.
    theta, energy, values
        Coordinates [n, d], loss [n] and curvatures [n, k] of the searches.
    """
    owner = np.full(len(energy), -1)
    levels = np.array([point.energy for point in known])
    new: list[int] = []
    for group in _levels(energy):
        level = energy[group[0]]
        near = np.abs(levels - level) <= 2 * _ENERGY * max(1.0, abs(level))
        for i in map(int, np.flatnonzero(near)):
            group = _claim(
                problem, known[i].theta, known[i].spectrum, i, group, owner, theta, values
            )
        while group.size:
            first = int(group[0])
            spectrum = values[first][values[first] < FLAT]
            number = len(known) + len(new)
            new.append(first)
            owner[first] = number
            group = _claim(problem, theta[first], spectrum, number, group[1:], owner, theta, values)
    return Found(owner, new)


def _levels(energy: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of equal energies, group by group."""
    order = np.argsort(energy, kind="stable")
    ladder = energy[order]
    gap = np.diff(ladder) > _ENERGY * np.maximum(1.0, np.abs(ladder[1:]))
    yield from (group for group in np.split(order, np.flatnonzero(gap) + 1) if group.size)


def _claim(
    problem: Problem,
    reference: np.ndarray,
    spectrum: np.ndarray,
    number: int,
    group: np.ndarray,
    owner: np.ndarray,
    theta: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """Give the members of a group that equal a reference its number; return the others."""
    if not group.size:
        return group
    alike = np.ones(group.size, bool)
    if problem.dim <= DENSE_UP_TO:
        scale = max(1.0, float(np.abs(spectrum).max()))
        there = values[group][:, : len(spectrum)]
        alike = np.abs(there - spectrum).max(axis=1) <= _SPECTRUM * scale
    rows = group[alike]
    if rows.size:
        points, origin = theta[rows], reference
        if problem.zero_modes is not None and problem.symmetry.invariants is None:
            flat = _flat_directions(problem, reference)
            points, origin = (x - (x @ flat) @ flat.T for x in (points, origin))
        equal = same(problem.symmetry, origin, points)
        owner[rows[equal]] = number
        alike[alike] = equal
    return group[~alike]


def _flat_directions(problem: Problem, theta: np.ndarray) -> np.ndarray:
    assert problem.zero_modes is not None
    with x64():
        return np.asarray(orthonormal(problem.zero_modes(jnp.asarray(theta))))
