"""Downhill to a minimum, thousands of starts at once: L-BFGS without line search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.landscape._pool import (
    CONVERGED,
    DIVERGED,
    EXHAUSTED,
    NOT_FINITE,
    RUNNING,
    STALLED,
    Walker,
)
from ntkstats.landscape._problem import Evaluate, Problem, batched
from ntkstats.landscape._settings import check_settings
from ntkstats.typing import Array, PyTree

_CHUNK = 16  # iterations between two looks at the lanes
_FIRST = 0.1  # inverse Hessian before anything is known
_REJECTIONS = 10  # in a row, before the history is thrown away, and then before giving up
_STILL = 16  # roundings of the coordinates that a step which stands still may be long
_FAR = 1e8  # a coordinate beyond has diverged


@dataclass(frozen=True)
class Quench:
    """How to go downhill.

    Attributes
    ----------
    tol
        Root mean square of the gradient at which a lane has converged.
    max_step
        Longest step, in the norm of the parameters.
    max_rise
        Rise of the loss that a step may cause, relative to ``max(1, |loss|)``; at least a few
        roundings of the precision in force.
    memory
        Pairs of steps and gradient changes that are remembered.
    max_iterations
        After which a lane gives up.
    """

    tol: float = 1e-5
    max_step: float = 0.4
    max_rise: float = 1e-10
    memory: int = 8
    max_iterations: int = 3000

    def __post_init__(self) -> None:
        check_settings(self, ("tol", "max_step", "max_rise"), ("memory", "max_iterations"))


class QuenchState(NamedTuple):
    """A batch of quenches, lanes last.

    ``x, g`` [d, B], ``f`` [B], ``s, y`` [m, d, B], ``rho`` [m, B] (0: nothing there), ``gamma``
    [B] (inverse curvature), ``shrink`` [B] (of the step, after rejections), ``rejected`` [B],
    ``iterations`` [B], ``status`` [B].
    """

    x: Array
    f: Array
    g: Array
    s: Array
    y: Array
    rho: Array
    gamma: Array
    shrink: Array
    rejected: Array
    iterations: Array
    status: Array


@lru_cache(maxsize=64)
def quencher(problem: Problem, config: Quench) -> Walker:
    """The search that `drain` runs."""
    evaluate = batched(problem)

    @jax.jit
    def init(starts: dict[str, Array], data: PyTree) -> QuenchState:
        x = starts["theta"]
        f, g = evaluate(x, data)
        lanes, m = x.shape[-1], config.memory
        zero = jnp.zeros(lanes, x.dtype)
        whole = jnp.zeros(lanes, jnp.int32)
        status = jnp.where(_finite(f, g), RUNNING, NOT_FINITE).astype(jnp.int32)
        history = jnp.zeros((m, *x.shape), x.dtype)
        state = QuenchState(
            x, f, g, history, history, jnp.zeros((m, lanes), x.dtype),
            zero + _FIRST, zero + 1, whole, whole, status,
        )  # fmt: skip
        return _judged(state, config)

    @jax.jit
    def advance(state: QuenchState, data: PyTree) -> QuenchState:
        def body(i: Array, state: QuenchState) -> QuenchState:
            return _iteration(state, i % config.memory, evaluate, data, config)

        # The slot that is written is the same for all lanes, so it starts where the last ended.
        return jax.lax.fori_loop(0, _CHUNK, body, state)

    def report(state: QuenchState) -> dict[str, Array]:
        return {
            "theta": state.x,
            "energy": state.f,
            "status": state.status,
            "iterations": state.iterations,
        }

    return Walker(init, advance, report)


def _iteration(
    state: QuenchState,
    slot: Array,
    evaluate: Evaluate,
    data: PyTree,
    config: Quench,
) -> QuenchState:
    """One step of every lane that runs, at one evaluation a lane."""
    running = state.status == RUNNING
    step = _direction(state, slot, config.memory)
    uphill = jnp.sum(step * state.g, axis=0) > 0
    step = jnp.where(uphill, -step, step)
    length = jnp.sqrt(jnp.sum(step * step, axis=0))
    step = step * (state.shrink * jnp.minimum(1.0, config.max_step / jnp.maximum(length, 1e-30)))
    x = state.x + step
    f, g = evaluate(x, data)
    eps = jnp.finfo(x.dtype).eps
    rise = max(config.max_rise, 4 * float(eps)) * jnp.maximum(1.0, jnp.abs(state.f))
    # A comparison with NaN is false: such a step is rejected like one that climbs.
    accepted = running & (f - state.f <= rise) & _finite(f, g)
    change = g - state.g
    curvature = jnp.sum(step * change, axis=0)
    squared = jnp.sum(change * change, axis=0)
    useful = accepted & (curvature > eps * squared)
    rejected = jnp.where(accepted, 0, state.rejected + 1)
    forget = running & (rejected == _REJECTIONS)
    rho = state.rho.at[slot].set(jnp.where(useful, 1 / jnp.where(useful, curvature, 1), 0))
    # Steps of rounding size: this is as far as the precision in force goes.
    size = 1 + jnp.sqrt(jnp.sum(x * x, axis=0))
    moved_by = jnp.sqrt(jnp.sum(step * step, axis=0))
    still = accepted & (state.shrink == 1) & (moved_by <= _STILL * eps * size)
    rejected = jnp.where(still, 2 * _REJECTIONS, rejected)
    moved = QuenchState(
        x=jnp.where(accepted, x, state.x),
        f=jnp.where(accepted, f, state.f),
        g=jnp.where(accepted, g, state.g),
        s=state.s.at[slot].set(step),
        y=state.y.at[slot].set(change),
        rho=jnp.where(forget, 0, rho),
        gamma=jnp.where(
            forget, _FIRST, jnp.where(useful, curvature / jnp.maximum(squared, 1e-30), state.gamma)
        ),
        shrink=jnp.where(accepted | forget, 1.0, state.shrink * 0.1).astype(x.dtype),
        rejected=rejected,
        iterations=state.iterations + running,
        status=state.status,
    )
    return _judged(moved, config)


def _direction(state: QuenchState, slot: Array, memory: int) -> Array:
    """Minus the inverse Hessian of the history times the gradient, by the two-loop recursion.

    The loops are rolled: unrolled, XLA computes each sum again in everything that reads it, and
    an iteration takes twenty times as long.
    """

    def newest_first(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        q, weights = carry
        j = (slot - 1 - k) % memory
        alpha = state.rho[j] * jnp.sum(state.s[j] * q, axis=0)
        return q - alpha * state.y[j], weights.at[j].set(alpha)

    def oldest_first(k: Array, q: Array) -> Array:
        j = (slot + k) % memory
        beta = state.rho[j] * jnp.sum(state.y[j] * q, axis=0)
        return q + (weights[j] - beta) * state.s[j]

    q, weights = jax.lax.fori_loop(0, memory, newest_first, (state.g, state.rho))
    return -jax.lax.fori_loop(0, memory, oldest_first, q * state.gamma)


def _judged(state: QuenchState, config: Quench) -> QuenchState:
    rms = jnp.sqrt(jnp.mean(state.g * state.g, axis=0))
    verdict = jnp.where(rms < config.tol, CONVERGED, RUNNING)
    verdict = jnp.where(state.rejected >= 2 * _REJECTIONS, STALLED, verdict)
    verdict = jnp.where(
        (state.iterations >= config.max_iterations) & (verdict == 0), EXHAUSTED, verdict
    )
    verdict = jnp.where(jnp.max(jnp.abs(state.x), axis=0) > _FAR, DIVERGED, verdict)
    status = jnp.where(state.status == RUNNING, verdict, state.status)
    return state._replace(status=status.astype(jnp.int32))


def _finite(f: Array, g: Array) -> Any:
    return jnp.isfinite(f) & jnp.all(jnp.isfinite(g), axis=0)
