"""Gradient flow, followed exactly enough to say where it ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.landscape._follow import largest_curvature
from ntkstats.landscape._modes import FLAT, Modes, Provider, provider
from ntkstats.landscape._problem import Evaluate, Problem, batched
from ntkstats.landscape._settings import check_settings
from ntkstats.typing import Array, PyTree

_CHUNK = 8
_BISECTIONS = 50
_SHORTEST = 1e-10  # of the first step: a lane whose step shrinks below is stuck


@dataclass(frozen=True)
class Flow:
    """How to follow the gradient flow ``d theta / dt = -grad``.

    Attributes
    ----------
    error
        Largest difference between the gradient after a step and the local quadratic model's,
        relative to the gradient before; steps that exceed it are halved.
    max_step
        Longest step, in the norm of the parameters.
    tol
        As for `Follow`: where the flow counts as having arrived.
    max_steps
        After which a lane gives up.
    """

    error: float = 0.02
    max_step: float = 0.1
    tol: float = 1e-8
    max_steps: int = 4000

    def __post_init__(self) -> None:
        check_settings(self, ("error", "max_step", "tol"), ("max_steps",))


class FlowState(NamedTuple):
    """A batch of flows, lanes last: ``x`` [d, B], ``guess`` [d, c, B], ``step, arc`` [B],
    ``running`` [B], ``lost`` [B].
    """  # noqa: D205

    x: Array
    guess: Array
    step: Array
    arc: Array
    running: Array
    lost: Array


class Path(NamedTuple):
    """Gradient flow from a start to where it ends.

    Attributes
    ----------
    theta
        Points [t, d] along it.
    arc
        Length of the path up to them [t].
    energy, gradient, lowest
        Loss, norm of the gradient and lowest curvature there [t].
    arrived
        Whether it ended at a stationary point.
    """

    theta: np.ndarray
    arc: np.ndarray
    energy: np.ndarray
    gradient: np.ndarray
    lowest: np.ndarray
    arrived: bool


def follow_flow(
    problem: Problem, starts: np.ndarray, config: Flow, *, batch: int = 64
) -> list[Path]:
    """Follow the flow from each start [n, d] to its end, under x64 mode.

    Each step is the exact flow of the local quadratic model, of a length at which the model still
    predicts the gradient (Page and McIver 1988); near a minimum its last step is Newton's.
    """
    advance, carried = _programs(problem, config)
    data = problem.data_as(np.float64)
    paths: list[Path] = []
    for first in range(0, len(starts), batch):
        block = np.asarray(starts[first : first + batch], np.float64)
        width = min(batch, max(8, 1 << (len(block) - 1).bit_length()))  # few shapes to compile
        x = jnp.asarray(np.resize(block, (width, problem.dim)).T)
        active = np.arange(width) < len(block)
        zero = jnp.zeros(width)
        noise = jax.random.normal(jax.random.key(1), (problem.dim, carried), x.dtype)
        guess = jnp.broadcast_to(noise[:, :, None], (*noise.shape, width))
        state = FlowState(
            x, guess, zero + config.max_step / 10, zero, jnp.asarray(active), zero > 1
        )
        pieces = []
        for _ in range(0, config.max_steps, _CHUNK):
            state, seen = advance(state, data)
            pieces.append(jax.tree.map(np.asarray, seen))
            if not np.asarray(state.running).any():
                break
        still = np.asarray(state.running | state.lost)
        paths += [_assembled(pieces, lane, not still[lane]) for lane in range(len(block))]
    return paths


class _Seen(NamedTuple):
    x: Array
    arc: Array
    energy: Array
    gradient: Array
    lowest: Array
    valid: Array


def _assembled(pieces: list[_Seen], lane: int, arrived: bool) -> Path:
    valid = np.concatenate([piece.valid[:, lane] for piece in pieces])
    x, arc, energy, gradient, lowest = (
        np.concatenate([np.asarray(piece[i])[..., lane] for piece in pieces])[valid]
        for i in range(5)
    )
    return Path(x, arc, energy, gradient, lowest, arrived)


@lru_cache(maxsize=32)
def _programs(problem: Problem, config: Flow) -> tuple[Any, int]:
    modes_at, carried = provider(problem)
    evaluate = batched(problem)

    @jax.jit
    def advance(state: FlowState, data: PyTree) -> tuple[FlowState, _Seen]:
        def body(state: FlowState, _: None) -> tuple[FlowState, _Seen]:
            return _step(state, modes_at, evaluate, carried, data, config)

        return jax.lax.scan(body, state, length=_CHUNK)

    return advance, carried


def _step(
    state: FlowState,
    modes_at: Provider,
    evaluate: Evaluate,
    carried: int,
    data: PyTree,
    config: Flow,
) -> tuple[FlowState, _Seen]:
    modes = modes_at(state.x, state.guess, data)
    norm = jnp.sqrt(jnp.sum(modes.gradient**2, axis=0))
    rms = norm / jnp.sqrt(modes.gradient.shape[0])
    there = rms <= config.tol * largest_curvature(modes)
    along = quadratic_flow(modes, state.step)
    move = modes.displacement(along)
    _, after = evaluate(state.x + move, data)
    # The gradient that the quadratic model predicts: g + H move.
    predicted = modes.gradient + modes.displacement(modes.values * along * _real(modes))
    off = jnp.sqrt(jnp.sum(_flattened(after - predicted, modes) ** 2, axis=0))
    good = off <= config.error * norm
    lost = state.running & (~modes.finite | (state.step < _SHORTEST))
    moves = state.running & good & ~there & ~lost
    easy = off <= 0.3 * config.error * norm
    step = jnp.where(good, jnp.where(easy, 1.5, 1.0) * state.step, 0.5 * state.step)
    seen = _Seen(
        state.x, state.arc, modes.energy, norm, modes.values[0],
        state.running & (moves | there),
    )  # fmt: skip
    return FlowState(
        x=jnp.where(moves, state.x + move, state.x),
        guess=modes.vectors[:, :carried],
        step=jnp.where(state.running, jnp.minimum(step, config.max_step), state.step),
        arc=state.arc + jnp.where(moves, jnp.sqrt(jnp.sum(move**2, axis=0)), 0),
        running=state.running & ~there & ~lost,
        lost=state.lost | lost,
    ), seen


def _real(modes: Modes) -> Array:
    return modes.values < FLAT  # zero modes carry no gradient, whatever curvature they were given


def _flattened(vectors: Array, modes: Modes) -> Array:
    """Vectors [d, B] without their part along declared zero modes, as gradients are given."""
    onto = jnp.sum(modes.vectors * vectors[:, None], axis=0)
    return vectors - modes.displacement(jnp.where(_real(modes), 0, onto))


def quadratic_flow(modes: Modes, length: Array) -> Array:
    """Components [k, B] of where the flow of the quadratic model is after a given length.

    ``-F (1 - exp(-b t)) / b`` with the time t at which the displacement has that norm, or the
    minimum of the model if it is nearer.
    """
    b, force = modes.values, modes.overlap
    b = jnp.where(_real(modes), b, 1.0)
    scale = largest_curvature(modes)

    def at(log_time: Array) -> Array:
        t = jnp.exp(log_time) / scale
        small = jnp.abs(b * t) < 1e-12
        growth = -jnp.expm1(-jnp.clip(b * t, -300, None)) / jnp.where(small, 1.0, b)
        return -force * jnp.where(small, t, growth)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        short = jnp.sum(at(middle) ** 2, axis=0) < length**2
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    ends = (jnp.full_like(length, -60.0), jnp.full_like(length, 60.0))
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, ends)
    del high
    return at(low)
