"""Twenty seeds, trained and measured as one program, against one seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

import ntkstats as nts
from ntkstats import collectors, training
from ntkstats.training import Task
from studies.benchmarks import _systems
from studies.benchmarks._harness import alternate
from studies.benchmarks._rows import Row
from studies.benchmarks._systems import System

QUESTION = (
    "Twenty seeds as one program against one seed: training steps, and one measurement of the "
    "NTK spectrum on 25 samples (20 would be linear)."
)
COLUMNS = ("20 seeds", "1 seed")
SEEDS = 20
NARROW_BAR = 12.0
LINEAR_BAR = 1.3 * SEEDS
STEPS = {"MLP": 100, "CNN": 3}


def task_of(system: System) -> Task:
    """Adam on minibatches of 32."""
    return training.supervised(
        system.init,
        system.apply,
        optax.adam(1e-3),
        optax.softmax_cross_entropy_with_integer_labels,
        system.x,
        system.y,
        batch_size=32,
    )


def trained(task: Task, seeds: int, steps: int) -> Callable[[], Any]:
    """A run of the reference loop; compiled at its first call."""
    keys = jax.random.split(jax.random.key(0), seeds)
    return lambda: training.run(task, keys, steps)


def measured(system: System, task: Task, seeds: int) -> Callable[[], Any]:
    """One record of the spectrum of every seed; compiled at its first call."""
    model = nts.as_model(system.apply)
    params = jax.vmap(task.init)(jax.random.split(jax.random.key(0), seeds)).params
    probe = nts.Probe(system.x[:25], system.y[:25])
    program = collectors.bind(model, params, probe, collectors.ntk_spectrum(), members=seeds)
    carry = program.init(jax.random.key(0))
    snapshot = collectors.Snapshot(0, *model.split(params), {})
    return lambda: collectors.run_on_host(program, carry, snapshot)


def run() -> list[Row]:
    """Measure every case."""
    rows = []
    for system, bar in (
        (_systems.mlp((16,), n=1000), NARROW_BAR),
        (_systems.mlp((64, 64), n=1000), LINEAR_BAR),
        (_systems.cnn(4, n=1000), LINEAR_BAR),
    ):
        task, steps = task_of(system), STEPS[system.name[:3]]
        many, one = (trained(task, seeds, steps) for seeds in (SEEDS, 1))
        name = system.name.split(",")[0]
        rows.append(alternate(f"{name}: {steps} steps", many, one, bar=bar, repeats=5))
        many, one = (measured(system, task, seeds) for seeds in (SEEDS, 1))
        rows.append(alternate(f"{name}: one record", many, one, bar=bar, repeats=5))
    return rows
