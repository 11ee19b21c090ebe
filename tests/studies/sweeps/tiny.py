"""A small study with real training: tanh networks on the digits, several seeds in one program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import ntkstats as nts
from studies._settings import setting
from studies._study import Report, Study
from studies.datasets import digits

_cross_entropy = optax.softmax_cross_entropy_with_integer_labels


@dataclass(frozen=True)
class Config:
    """Settings."""

    width: int = setting(8, "units of a hidden layer")
    depth: int = setting(1, "hidden layers")
    seeds: int = setting(4, "seeds, trained together")
    steps: int = setting(40, "updates")
    records: int = setting(6, "records on the way")
    learning_rate: float = setting(0.05, "of Adam")
    seed: int = setting(0, "decides everything")


@dataclass(frozen=True)
class Training:
    """One network."""

    label: str
    width: int
    depth: int
    seeds: int
    steps: int
    records: int
    learning_rate: float
    seed: int


def tasks(config):
    label = f"tanh network (width {config.width}, depth {config.depth})"
    return (
        Training(
            label,
            config.width,
            config.depth,
            config.seeds,
            config.steps,
            config.records,
            config.learning_rate,
            config.seed,
        ),
    )


def run(task, folder: Path, progress):
    data = digits(seed=task.seed)
    x, y = data.x_train.reshape(-1, 64), jnp.asarray(data.y_train)
    sizes = [64, *[task.width] * task.depth, 10]

    def init(key):
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            jax.random.normal(k, (n, m)) / jnp.sqrt(n)
            for k, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    def apply(params, x):
        for w in params[:-1]:
            x = jnp.tanh(x @ w)
        return x @ params[-1]

    learning = nts.training.supervised(
        init, apply, optax.adam(task.learning_rate), _cross_entropy, x, y, batch_size=32
    )
    test = nts.Probe(data.x_test[:60].reshape(-1, 64), data.y_test[:60], name="test")
    with (
        progress.bar(task.label) as update,
        nts.Recorder(
            folder / "run.sqlite",
            nts.as_model(apply),
            (nts.Probe(x[:20], y[:20], name="train"), test),
            (
                nts.collectors.ntk_spectrum(),
                nts.collectors.loss("cross_entropy"),
                nts.collectors.loss("cross_entropy", probe="test"),
            ),
            at=nts.RecordAt.log(task.records, until=task.steps),
            config=task,
            seed=task.seed,
            members=task.seeds,
        ) as recorder,
    ):
        keys = jax.random.split(jax.random.key(task.seed), task.seeds)
        nts.training.run(learning, keys, task.steps, recorder=recorder, progress=update)


def report(config, finished, folder):
    return Report("nothing", ())


study = Study("tiny", "Entropy of small tanh networks.", Config, tasks, run, report)
