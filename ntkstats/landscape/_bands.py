"""Doubly nudged elastic bands between pairs of minima, all pairs and images at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64
from ntkstats.errors import LandscapeError
from ntkstats.landscape._follow import Follow
from ntkstats.landscape._matching import align
from ntkstats.landscape._pool import CONVERGED
from ntkstats.landscape._problem import Problem, batched
from ntkstats.landscape._report import Report
from ntkstats.landscape._search import followed
from ntkstats.landscape._settings import check_settings
from ntkstats.typing import Array, PyTree

if TYPE_CHECKING:
    from ntkstats.landscape._landscape import Landscape

# Fast inertial relaxation (Bitzek et al. 2006): patience, growth and loss of the time step.
_PATIENCE, _GROWTH, _LOSS, _MIX, _MIX_LOSS = 5, 1.1, 0.5, 0.1, 0.99


@dataclass(frozen=True)
class Band:
    """How to relax an elastic band.

    Attributes
    ----------
    images
        Points between the two minima.
    iterations
        Steps of the relaxation; maxima need not be exact, since they are refined afterwards.
    spring
        Stiffness, in units of the mean gradient along the straight line over the mean distance of
        neighbours.
    max_step
        Longest move of an image in one iteration, in units of the distance of neighbours.
    """

    images: int = 15
    iterations: int = 300
    spring: float = 1.0
    max_step: float = 0.2

    def __post_init__(self) -> None:
        check_settings(self, ("spring", "max_step"), ("images", "iterations"))


class Relaxed(NamedTuple):
    """Bands after relaxation: ``theta`` [p, images + 2, d] with both ends, ``energy`` likewise."""

    theta: np.ndarray
    energy: np.ndarray


def relax(problem: Problem, ends: np.ndarray, config: Band) -> Relaxed:
    """Relax bands between ends [p, 2, d], starting from straight lines, under x64 mode."""
    t = np.linspace(0, 1, config.images + 2)[:, None]
    line = ends[:, None, 0] * (1 - t) + ends[:, None, 1] * t
    theta, energy = _relaxer(problem, config)(jnp.asarray(line), problem.data_as(np.float64))
    return Relaxed(np.asarray(theta), np.asarray(energy))


def bridge(
    scape: Landscape, pairs: Sequence[tuple[int, int]], band: Band, follow: Follow
) -> Report:
    """See `Landscape.bridge`."""
    minima = scape.ids(0)
    report = Report()
    ends = []
    for a, b in pairs:
        if not (0 <= a < len(minima) and 0 <= b < len(minima)):
            known = f"expected positions from 0 to {len(minima) - 1}, those of network().minima."
            none = "no minimum is known yet; call find_minima first."
            msg = f"pair ({a}, {b}); {known if minima else none}"
            raise LandscapeError(msg)
        here, there = scape.points[minima[a]].theta, scape.points[minima[b]].theta
        ends.append([here, align(scape.problem.symmetry, here, there).theta])
    if not ends:
        return report
    with x64():
        tops = maxima(relax(scape.problem, np.array(ends), band))
        if not len(tops):
            return report
        found = followed(scape.problem, tops, 1, follow, 256)
    _, new = scape.absorb(found, None)
    ok = found["status"] == CONVERGED
    return report.plus(found["status"], new, int((found["index"][ok] != 1).sum()))


def maxima(bands: Relaxed) -> np.ndarray:
    """Images [n, d] that are higher than both neighbours."""
    inner = bands.energy[:, 1:-1]
    top = (inner > bands.energy[:, :-2]) & (inner > bands.energy[:, 2:])
    return bands.theta[:, 1:-1][top]


@lru_cache(maxsize=32)
def _relaxer(problem: Problem, config: Band):  # type: ignore[no-untyped-def]
    evaluate = batched(problem)

    def energies(x: Array, data: PyTree) -> tuple[Array, Array]:
        p, images, d = x.shape
        f, g = evaluate(x.reshape(p * images, d).T, data)
        return f.reshape(p, images), g.T.reshape(x.shape)

    @jax.jit
    def run(x: Array, data: PyTree) -> tuple[Array, Array]:
        _, g = energies(x, data)
        spacing = jnp.linalg.norm(x[:, -1] - x[:, 0], axis=-1)[:, None, None] / (x.shape[1] - 1)
        steepness = jnp.mean(jnp.linalg.norm(g[:, 1:-1], axis=-1), axis=1)[:, None, None]
        spring = config.spring * steepness / jnp.maximum(spacing, 1e-12)
        step = spacing / jnp.maximum(steepness, 1e-12)  # a time squared
        state = (
            x,
            jnp.zeros_like(x[:, 1:-1]),
            0.1 * jnp.sqrt(step),
            spacing * 0,
            spacing * 0 + _MIX,
        )

        def body(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
            x, v, dt, calm, mix = state
            f, g = energies(x, data)
            force = _force(x, f, g, spring)
            power = jnp.sum(force * v, axis=(1, 2), keepdims=True)
            size = [jnp.sqrt(jnp.sum(a * a, axis=(1, 2), keepdims=True)) for a in (v, force)]
            downhill = power > 0
            v = jnp.where(
                downhill, (1 - mix) * v + mix * force * size[0] / jnp.maximum(size[1], 1e-30), 0
            )
            calm = jnp.where(downhill, calm + 1, 0)
            faster = calm > _PATIENCE
            dt = jnp.where(downhill, jnp.where(faster, _GROWTH, 1.0) * dt, _LOSS * dt)
            mix = jnp.where(downhill, jnp.where(faster, _MIX_LOSS * mix, mix), _MIX)
            v = v + dt * force
            move = dt * v
            length = jnp.linalg.norm(move, axis=-1, keepdims=True)
            move = move * jnp.minimum(1.0, config.max_step * spacing / jnp.maximum(length, 1e-30))
            return x.at[:, 1:-1].add(move), v, dt, calm, mix

        x = jax.lax.fori_loop(0, config.iterations, body, state)[0]
        return x, energies(x, data)[0]

    return run


def _force(x: Array, f: Array, g: Array, spring: Array) -> Array:
    """Doubly nudged force on the inner images [p, images, d]."""
    after, before = x[:, 2:] - x[:, 1:-1], x[:, 1:-1] - x[:, :-2]
    tangent = _tangent(f, after, before)
    g = g[:, 1:-1]
    across = g - _onto(g, tangent)
    stretch = jnp.linalg.norm(after, axis=-1) - jnp.linalg.norm(before, axis=-1)
    pull = spring * (after - before)
    # Of the springs' force across the band, what does not work against the true one.
    sideways = pull - _onto(pull, tangent)
    slope = across / jnp.maximum(jnp.linalg.norm(across, axis=-1, keepdims=True), 1e-30)
    return -across + spring * stretch[..., None] * tangent + sideways - _onto(sideways, slope)


def _tangent(f: Array, after: Array, before: Array) -> Array:
    """Unit vectors along the band, towards the higher neighbour (Henkelman and Jonsson 2000)."""
    up, down = (f[:, 2:] - f[:, 1:-1])[..., None], (f[:, 1:-1] - f[:, :-2])[..., None]
    most, least = jnp.maximum(jnp.abs(up), jnp.abs(down)), jnp.minimum(jnp.abs(up), jnp.abs(down))
    rising = f[:, 2:, None] > f[:, :-2, None]
    mixed = jnp.where(rising, after * most + before * least, after * least + before * most)
    tangent = jnp.where(
        (up > 0) & (down > 0), after, jnp.where((up < 0) & (down < 0), before, mixed)
    )
    return tangent / jnp.maximum(jnp.linalg.norm(tangent, axis=-1, keepdims=True), 1e-30)


def _onto(vectors: Array, unit: Array) -> Array:
    return jnp.sum(vectors * unit, axis=-1, keepdims=True) * unit
