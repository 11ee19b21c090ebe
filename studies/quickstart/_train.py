"""Train one network from all seeds at once, and record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import ntkstats as nts
from studies._errors import StudyError
from studies._pace import Pace
from studies._progress import Progress
from studies.datasets import DATASETS
from studies.quickstart._config import Training
from studies.quickstart._networks import network

RUN = "run.sqlite"

_cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def run(task: Training, folder: Path, progress: Progress) -> None:
    """Leave the recorded run in ``folder / RUN``."""
    data = DATASETS[task.dataset](seed=task.seed)
    for name, value in (("probe", task.probe), ("batch_size", task.batch_size)):
        if value > len(data.y_train):
            msg = f"{name}={value}; {data.name} has {len(data.y_train)} training images."
            raise StudyError(msg)
    probe_key, member_key = jax.random.split(jax.random.key(task.seed))
    probe = nts.Probe.from_dataset(
        probe_key, data.x_train, data.y_train, n=task.probe, stratify=True, name="train"
    )
    test = nts.Probe(data.x_test, data.y_test, name="test")

    module = network(task)
    optimizers = {"adam": optax.adam, "sgd": optax.sgd}

    def init(key: jax.Array) -> Any:
        return module.init(key, data.x_train[:1])["params"]

    def apply(params: Any, x: Any) -> jax.Array:
        return jnp.asarray(module.apply({"params": params}, x))

    learning = nts.training.supervised(
        init,
        apply,
        optimizers[task.optimizer](task.learning_rate),
        _cross_entropy,
        data.x_train,
        jnp.asarray(data.y_train),
        batch_size=task.batch_size,
    )
    at = nts.RecordAt.log(task.records, until=task.steps)
    with (
        progress.bar(task.label) as update,
        nts.Recorder(
            folder / RUN,
            nts.as_model(module),
            (probe, test),
            (
                nts.collectors.ntk_spectrum(),
                nts.collectors.loss("cross_entropy"),
                nts.collectors.accuracy(),
                nts.collectors.loss("cross_entropy", probe="test"),
                nts.collectors.accuracy(probe="test"),
            ),
            at=at,
            config=task,
            seed=task.seed,
            members=task.seeds,
            strict=True,
        ) as recorder,
    ):
        keys = jax.random.split(member_key, task.seeds)
        nts.training.run(learning, keys, task.steps, recorder=recorder, progress=Pace(update, at))
