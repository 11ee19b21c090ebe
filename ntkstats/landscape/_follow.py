"""Along eigenvectors to a stationary point of a given index, from many starts at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.landscape._modes import FLAT, Modes, Provider, provider
from ntkstats.landscape._pool import (
    CONVERGED,
    DIVERGED,
    EXHAUSTED,
    NOT_FINITE,
    RUNNING,
    Walker,
)
from ntkstats.landscape._problem import Problem
from ntkstats.landscape._settings import check_settings
from ntkstats.typing import Array, PyTree

_CHUNK = 4  # polishing takes three to five iterations
_FAR = 1e8
_TINY = 1e-14  # a step this much shorter than the coordinates changes nothing


@dataclass(frozen=True)
class Follow:
    """How to follow eigenvectors.

    Attributes
    ----------
    tol
        Root mean square of the gradient at which a lane has converged, in units of the largest
        curvature (if that exceeds one).
    max_step
        Longest step along any one mode.
    max_iterations
        After which a lane gives up.
    zero_tol
        Curvatures smaller than this, in units of the largest, count as zero.
    """

    tol: float = 1e-11
    max_step: float = 0.2
    max_iterations: int = 300
    zero_tol: float = 1e-7

    def __post_init__(self) -> None:
        check_settings(self, ("tol", "max_step", "zero_tol"), ("max_iterations",))


class FollowState(NamedTuple):
    """A batch of searches, lanes last.

    ``x`` [d, B], ``guess`` [d, c, B] (softest modes of the iteration before), ``wanted`` [B]
    (index to converge to), ``energy, gradient`` [B] (root mean square), ``values`` [k, B],
    ``negative`` [B] (curvatures), ``iterations`` [B], ``status`` [B].
    """

    x: Array
    guess: Array
    wanted: Array
    energy: Array
    gradient: Array
    values: Array
    negative: Array
    iterations: Array
    status: Array


@lru_cache(maxsize=64)
def follower(problem: Problem, config: Follow) -> Walker:
    """The search that `drain` runs; starts are ``theta`` and ``index``."""
    modes_at, carried = provider(problem)

    def init(starts: dict[str, Array], data: PyTree) -> FollowState:
        x = starts["theta"]
        lanes = x.shape[-1]
        shape = jax.eval_shape(modes_at, x, _guess(x, carried), data)
        zero = jnp.zeros(lanes, x.dtype)
        whole = jnp.zeros(lanes, jnp.int32)
        values = jnp.zeros(shape.values.shape, x.dtype)
        return FollowState(
            x, _guess(x, carried), starts["index"], zero, zero, values, whole, whole, whole
        )

    @jax.jit
    def advance(state: FollowState, data: PyTree) -> FollowState:
        def body(_: Array, state: FollowState) -> FollowState:
            return _iteration(state, modes_at, carried, data, config)

        return jax.lax.fori_loop(0, _CHUNK, body, state)

    def report(state: FollowState) -> dict[str, Array]:
        return {
            "theta": state.x,
            "energy": state.energy,
            "gradient": state.gradient,
            "values": state.values,
            "index": state.negative,
            "status": state.status,
            "iterations": state.iterations,
        }

    return Walker(jax.jit(init), advance, report)


def _guess(x: Array, carried: int) -> Array:
    """Directions to begin with; any will do that no symmetry singles out."""
    noise = jax.random.normal(jax.random.key(0), (x.shape[0], carried), x.dtype)
    return jnp.broadcast_to(noise[:, :, None], (*noise.shape, x.shape[-1]))


def _iteration(
    state: FollowState, modes_at: Provider, carried: int, data: PyTree, config: Follow
) -> FollowState:
    modes = modes_at(state.x, state.guess, data)
    running = state.status == RUNNING
    rms = jnp.sqrt(jnp.mean(modes.gradient**2, axis=0))
    scale = largest_curvature(modes)
    along = step_along(modes, state.wanted, config.max_step)
    length = jnp.sqrt(jnp.sum(along * along, axis=0))
    size = 1 + jnp.sqrt(jnp.sum(state.x**2, axis=0))
    verdict = jnp.where((rms <= config.tol * scale) | (length < _TINY * size), CONVERGED, RUNNING)
    late = (state.iterations >= config.max_iterations) & (verdict == RUNNING)
    verdict = jnp.where(late, EXHAUSTED, verdict)
    verdict = jnp.where(jnp.max(jnp.abs(state.x), axis=0) > _FAR, DIVERGED, verdict)
    verdict = jnp.where(modes.finite, verdict, NOT_FINITE)
    moves = running & (verdict == RUNNING)
    negative = jnp.sum(modes.values < -config.zero_tol * scale, axis=0)
    return FollowState(
        x=jnp.where(moves, state.x + modes.displacement(along), state.x),
        guess=modes.vectors[:, :carried],
        wanted=state.wanted,
        energy=jnp.where(running, modes.energy, state.energy),
        gradient=jnp.where(running, rms, state.gradient),
        values=jnp.where(running, modes.values, state.values),
        negative=jnp.where(running, negative, state.negative).astype(jnp.int32),
        iterations=state.iterations + moves,
        status=jnp.where(running, verdict, state.status).astype(jnp.int32),
    )


def largest_curvature(modes: Modes) -> Array:
    """Scale of the Hessian [B], at least one; zero modes do not count."""
    values = jnp.abs(modes.values)
    return jnp.maximum(1.0, jnp.max(jnp.where(values < FLAT, values, 0), axis=0))


def step_along(modes: Modes, uphill: Array, max_step: float) -> Array:
    """Components [k, B] of a step: up along the ``uphill`` [B] softest modes, down the others.

    ``2 F / (|b| + sqrt(b^2 + 4 F^2))`` is Newton's step where the gradient F is small beside the
    curvature b, and of length one where it is large (Wales 1994).
    """
    b, force = jnp.abs(modes.values), modes.overlap
    # The smallest normal number keeps 0 / 0 out where both vanish.
    tiny = jnp.finfo(b.dtype).tiny
    size = 2 * force / (b + jnp.sqrt(b * b + 4 * force * force) + tiny)
    climbs = jnp.arange(b.shape[0])[:, None] < uphill[None]
    return jnp.clip(jnp.where(climbs, size, -size), -max_step, max_step)
