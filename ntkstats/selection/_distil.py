"""Training a predictor on what is selected so far, in fixed shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from ntkstats.selection._rows import Rows
from ntkstats.selection._types import Problem
from ntkstats.typing import Array, Inputs, Params, PyTree

SMALLEST = 8
"""Entries of the smallest part of the buffer on which is trained."""

CHUNK = 4096
"""Rows of the pool that a network sees at once."""


class Buffer(NamedTuple):
    """The selected samples in the order of their slots.

    Attributes
    ----------
    x
        Leaves ``(slots, ...)``.
    goal
        ``(pairs, slots, ...)`` outputs of the targets.
    """

    x: Inputs
    goal: Array


class Schedule(Protocol):
    """What training needs to know of the selector."""

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Any optax transformation."""
        ...

    @property
    def max_steps(self) -> int:
        """Updates at most."""
        ...

    @property
    def check_every(self) -> int:
        """Updates before the first look at the loss."""
        ...

    @property
    def growth(self) -> float:
        """Factor between looks."""
        ...

    @property
    def _predict(self) -> Callable[[Params, Inputs], Array]: ...


class Trained(NamedTuple):
    """Predictors after training.

    Attributes
    ----------
    params, opt_state
        ``(pairs, ...)``.
    steps
        Updates of this training.
    look
        Number of looks at the loss.
    loss
        ``(pairs,)`` mean error on the selected samples.
    """

    params: Params
    opt_state: PyTree
    steps: Array
    look: Array
    loss: Array


def outputs(apply: Callable[[Params, Inputs], Array], params: Params, x: Inputs) -> Array:
    """``(pairs, n, m)`` outputs of every network, a chunk of rows at a time."""
    n = jax.tree.leaves(x)[0].shape[0]

    def flat(params: Params, x: Inputs) -> Array:
        out = apply(params, x)
        return out.reshape(out.shape[0], -1)

    if n <= CHUNK:
        return jax.vmap(flat, in_axes=(0, None))(params, x)

    def row(sample: Inputs) -> Array:
        one = jax.tree.map(lambda leaf: leaf[None], sample)
        return jax.vmap(flat, in_axes=(0, None))(params, one)[:, 0]

    return jnp.moveaxis(jax.lax.map(row, x, batch_size=CHUNK), 0, 1)


def squared_error(found: Array, goal: Array) -> Array:
    """``(pairs, n)`` mean squared difference of the outputs."""
    return jnp.mean((found - goal) ** 2, axis=-1)


def cosine_distance(found: Array, goal: Array) -> Array:
    """``(pairs, n)`` one minus the cosine between the outputs."""
    norms = jnp.linalg.norm(found, axis=-1) * jnp.linalg.norm(goal, axis=-1)
    inner = jnp.sum(found * goal, axis=-1)
    return 1 - inner / jnp.where(norms > 0, norms, 1)


def combined(how: str, errors: Array, rows: Rows) -> Array:
    """``(n,)`` one score from those of the pairs ``(pairs, n)``."""
    if how == "max":
        return jnp.max(errors, axis=0)
    if how == "rank":
        everyone = rows.gather(errors.T).T
        ranks = jnp.argsort(jnp.argsort(everyone, axis=1), axis=1)
        return rows.scatter(jnp.mean(ranks.astype(errors.dtype), axis=0))
    return jnp.mean(errors, axis=0)


def whitened(problem: Problem) -> Inputs:
    """Inputs with mean 0 and variance 1 over the pool, clipped to [-5, 5]."""

    def one(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        weight = problem.measure.reshape((-1,) + (1,) * (leaf.ndim - 1))
        mean = problem.rows.sum(weight * leaf)
        variance = problem.rows.sum(weight * (leaf - mean) ** 2)
        return jnp.clip((leaf - mean) / jnp.sqrt(jnp.where(variance > 0, variance, 1)), -5, 5)

    return jax.tree.map(one, problem.pool.x)


def sizes_of(slots: int) -> list[int]:
    """Parts of a buffer that are compiled: 8, 16, 32, ... and the whole."""
    sizes, size = [], SMALLEST
    while size < slots:
        sizes.append(size)
        size *= 2
    return [*sizes, slots]


def distil(
    schedule: Schedule,
    params: Params,
    opt_state: PyTree,
    buffer: Buffer,
    filled: Array,
    limit: Array,
) -> Trained:
    """Train all pairs on the ``filled`` first slots until each has a loss of at most ``limit``."""
    sizes = sizes_of(jax.tree.leaves(buffer.x)[0].shape[0])

    def on_first(size: int) -> Callable[..., Trained]:
        def run(params: Params, opt_state: PyTree, buffer: Buffer) -> Trained:
            x = jax.tree.map(lambda leaf: leaf[:size], buffer.x)
            weight = (jnp.arange(size) < filled).astype(limit.dtype) / filled
            return _train(schedule, params, opt_state, x, buffer.goal[:, :size], weight, limit)

        return run

    # The number of filled slots is the same in all lanes of a vmap: one branch runs.
    smallest = jnp.searchsorted(jnp.asarray(sizes), filled)
    return jax.lax.switch(smallest, [on_first(size) for size in sizes], params, opt_state, buffer)


def _train(
    schedule: Schedule,
    params: Params,
    opt_state: PyTree,
    x: Inputs,
    goal: Array,
    weight: Array,
    limit: Array,
) -> Trained:
    predict, optimizer = schedule._predict, schedule.optimizer

    def loss(params: Params, goal: Array) -> Array:
        found = predict(params, x)
        return jnp.sum(weight * squared_error(found.reshape(found.shape[0], -1), goal))

    def update(params: Params, opt_state: PyTree, goal: Array) -> tuple[Params, PyTree]:
        grads = jax.grad(loss)(params, goal)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def block(state: Trained) -> Trained:
        length = block_length(schedule, state)
        params, opt_state = jax.lax.fori_loop(
            0,
            length,
            lambda _, s: jax.vmap(update)(s[0], s[1], goal),
            (state.params, state.opt_state),
        )
        return Trained(
            params,
            opt_state,
            state.steps + length,
            state.look + 1,
            jax.vmap(loss)(params, goal),
        )

    def unfinished(state: Trained) -> Array:
        # NaN is never small enough, so a predictor that diverges stops at its last step.
        return (state.steps < schedule.max_steps) & ~jnp.all(state.loss <= limit)

    zero = jnp.zeros((), jnp.int32)
    start = Trained(params, opt_state, zero, zero, jnp.full_like(limit, jnp.inf))
    return jax.lax.while_loop(unfinished, block, start)


def block_length(schedule: Schedule, state: Trained) -> Array | int:
    """Updates until the next look at the loss."""
    if schedule.growth == 1 and schedule.max_steps % schedule.check_every == 0:
        return schedule.check_every  # known when compiling, also under vmap
    grown = schedule.check_every * jnp.asarray(schedule.growth) ** state.look
    return jnp.minimum(jnp.round(grown).astype(jnp.int32), schedule.max_steps - state.steps)
