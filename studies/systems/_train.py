"""Train a task from several seeds at once, with our collectors attached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import ntkstats as nts
from ntkstats.collectors import Collector
from ntkstats.models import Model
from ntkstats.training import Task
from ntkstats.typing import Array, Params, PyTree
from studies._pace import Pace
from studies._progress import Update
from studies.systems._options import Run

Progress = Update | None


class Measured(NamedTuple):
    """What is recorded: the model, the probes, and the collectors on them."""

    model: Model
    probes: Sequence[nts.Probe]
    collectors: Sequence[Collector]


def train_task(
    task: Task,
    measured: Measured,
    config: Run,
    path: Path,
    *,
    about: Mapping[str, Any],
    at: nts.RecordAt | None = None,
    progress: Progress,
) -> None:
    """Leave the recorded run of ``config.seeds`` members at `path`.

    Parameters
    ----------
    task
        What is trained.
    measured
        What is recorded.
    config
        Settings; stored with the run.
    path
        File of the run.
    about
        Facts that are stored beside the settings: name of the system, the data.
    at
        When to record; by default ``config.records`` times, spaced logarithmically.
    progress
        Called with updates done, in total, and seconds left; or None.
    """
    at = nts.RecordAt.log(config.records, until=config.steps) if at is None else at
    facts = {**about, **dataclasses.asdict(config)}
    with nts.Recorder(
        path,
        measured.model,
        tuple(measured.probes),
        tuple(measured.collectors),
        at=at,
        config=facts,
        seed=config.seed,
        members=config.seeds,
        strict=True,
    ) as recorder:
        nts.training.run(
            task,
            member_keys(config),
            config.steps,
            recorder=recorder,
            progress=None if progress is None else Pace(progress, at),
        )


def member_keys(config: Run) -> Array:
    """``(seeds,)`` keys, one a member."""
    return jax.random.split(jax.random.split(jax.random.key(config.seed))[1], config.seeds)


def probe_key(config: Run) -> Array:
    """The key from which probes are drawn."""
    return jax.random.split(jax.random.key(config.seed))[0]


class SampledCarry(NamedTuple):
    """Training state of a `sampled` task: parameters, optimiser, key of this member."""

    params: Params
    opt_state: optax.OptState
    key: Array


def sampled(
    init: Callable[[Array], Params],
    objective: Callable[[Params, Array], Array],
    optimizer: optax.GradientTransformation,
) -> Task:
    """Minimise an expectation of which every update draws a new estimate.

    Parameters
    ----------
    init
        ``init(key) -> params``.
    objective
        ``objective(params, key) -> scalar``; its gradient is an estimate of that of the loss.
    optimizer
        Any optax transformation.
    """

    def start(key: Array) -> SampledCarry:
        params_key, key = jax.random.split(key)
        params = init(params_key)
        return SampledCarry(params, optimizer.init(params), key)

    def step(carry: SampledCarry, i: Array) -> SampledCarry:
        grads = jax.grad(objective)(carry.params, jax.random.fold_in(carry.key, i))
        updates, opt_state = optimizer.update(grads, carry.opt_state, carry.params)
        return SampledCarry(optax.apply_updates(carry.params, updates), opt_state, carry.key)

    return Task(start, step, lambda carry: carry.params)


def switched(before: Task, after: Task, at: int) -> Task:
    """One task up to update `at`, and another one from there; both have the same carry."""

    def step(carry: PyTree, i: Array) -> PyTree:
        # i is shared by all members, so that under vmap this stays a branch
        return jax.lax.cond(jnp.asarray(i) < at, before.step, after.step, carry, i)

    return Task(before.init, step, before.obj)
