"""What supervised systems share: data as the settings ask, one task, one set of records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import ntkstats as nts
from ntkstats.collectors import Collector
from ntkstats.models import Model
from ntkstats.training import Task
from ntkstats.typing import Array, Inputs, LossFn, Params
from studies._errors import StudyError
from studies.datasets import Dataset, load
from studies.systems._options import Learning, optimizer
from studies.systems._scores import spectra
from studies.systems._train import Measured, Progress, probe_key, switched, train_task


class Problem(NamedTuple):
    """A network, what it learns, and from what.

    Attributes
    ----------
    system
        Name of the system, stored with the run.
    data
        What it learns from.
    init, apply
        ``init(key) -> params``; ``apply(params, x) -> output`` as it is trained.
    model
        What is recorded.
    loss
        ``loss(output, y) -> (N,)``.
    heads
        Outputs of the model whose kernels are recorded; empty for a model with one output.
    scored
        The head that the loss is about.
    also
        ``also(probe) -> collectors``, for the probe (None) and the test samples ("test").
    """

    system: str
    data: Dataset
    init: Callable[[Array], Params]
    apply: Callable[[Params, Inputs], Array]
    model: Model
    loss: LossFn
    heads: tuple[str, ...] = ()
    scored: str | None = None
    also: Callable[[str | None], Sequence[Collector]] = lambda probe: ()  # noqa: ARG005


def fit(problem: Problem, config: Learning, path: Path, *, progress: Progress) -> None:
    """Train the network from several seeds and leave the recorded run at `path`.

    Raises
    ------
    StudyError
        The settings ask for more samples than there are, or for noise on what is not continuous.
    """
    data = problem.data
    train_task(
        supervised(problem, config),
        measured(problem, config),
        config,
        path,
        about={
            "system": problem.system,
            "data": {"name": data.name, "source": data.source, "licence": data.licence},
        },
        at=moments(config),
        progress=progress,
    )


def moments(config: Learning) -> nts.RecordAt:
    """Logarithmic from the first update, and again from the one where targets turn wrong."""
    at = nts.RecordAt.log(config.records, until=config.steps)
    if not config.corruption or not 0 < config.corrupt_at < config.steps:
        return at
    left = config.steps - config.corrupt_at
    again = nts.RecordAt.log(config.records, until=left).points(left)
    return at | nts.RecordAt.steps([int(config.corrupt_at + step) for step in again])


def supervised(problem: Problem, config: Learning) -> Task:
    """The task: minibatches of the training samples, with wrong targets from an update on."""
    x, y = training_samples(problem.data, config)
    if config.batch_size > len(y):
        msg = f"batch_size={config.batch_size}; there are {len(y)} training samples."
        raise StudyError(msg)

    def task(targets: np.ndarray) -> Task:
        return nts.training.supervised(
            problem.init,
            problem.apply,
            optimizer(config),
            problem.loss,
            x,
            jnp.asarray(targets),
            batch_size=config.batch_size,
        )

    if not config.corruption:
        return task(y)
    wrong = task(corrupted(y, config.corruption, seed=config.seed))
    return wrong if config.corrupt_at == 0 else switched(task(y), wrong, config.corrupt_at)


def measured(problem: Problem, config: Learning) -> Measured:
    """Spectrum, loss and more on samples that are trained on, and on those held out."""
    x, y = chosen_samples(problem.data, config)
    if config.probe > len(y):
        msg = f"probe={config.probe}; there are {len(y)} training samples."
        raise StudyError(msg)
    labels = y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
    probe = nts.Probe.from_dataset(
        probe_key(config), x, y, n=config.probe, stratify=labels, name="train"
    )
    test = nts.Probe(problem.data.x_test, problem.data.y_test, name="test")
    scores = [
        collector
        for part in (None, "test")
        for collector in (
            nts.collectors.loss(problem.loss, head=problem.scored, probe=part),
            *problem.also(part),
        )
    ]
    return Measured(
        problem.model, (probe, test), (*spectra(config.outputs, problem.heads), *scores)
    )


def chosen_samples(data: Dataset, config: Learning) -> tuple[Any, np.ndarray]:
    """The first ``config.samples`` training samples: which ones these are, the seed decides."""
    n = len(data.y_train)
    if config.samples > n:
        msg = f"samples={config.samples}; {data.name} has {n} training samples."
        raise StudyError(msg)
    stop = config.samples or n
    return jax.tree.map(lambda leaf: leaf[:stop], data.x_train), data.y_train[:stop]


def training_samples(data: Dataset, config: Learning) -> tuple[Any, np.ndarray]:
    """The chosen samples and their copies; only copies have noise."""
    x, y = chosen_samples(data, config)
    if config.copies == 1:
        return x, y
    rng = np.random.default_rng([config.seed, 2])

    def repeated(leaf: np.ndarray) -> np.ndarray:
        copies = np.concatenate([leaf] * (config.copies - 1))
        if config.jitter:
            if not np.issubdtype(leaf.dtype, np.floating):
                msg = f"jitter={config.jitter} makes no sense for {data.name}: inputs are integers."
                raise StudyError(msg)
            copies = copies + config.jitter * rng.normal(size=copies.shape).astype(leaf.dtype)
        return np.concatenate([leaf, copies])

    return jax.tree.map(repeated, x), np.concatenate([y] * config.copies)


def corrupted(y: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """Targets of which a share is wrong: another class, or the value of another sample."""
    rng = np.random.default_rng([seed, 3])
    wrong = rng.permutation(len(y))[: round(share * len(y))]
    y = y.copy()
    if np.issubdtype(y.dtype, np.integer):
        classes = int(y.max()) + 1
        y[wrong] = (y[wrong] + rng.integers(1, classes, y[wrong].shape)) % classes
    else:
        y[wrong] = y[np.roll(wrong, 1)]
    return y


def of_kind(name: str, *kinds: type, seed: int) -> Any:
    """Load a data set that has to be of one of some kinds.

    Raises
    ------
    StudyError
        It is of another kind.
    """
    data = load(name, seed=seed)
    if not isinstance(data, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        msg = f"dataset={name!r} is of kind {type(data).__name__}; expected {wanted}."
        raise StudyError(msg)
    return data


def of_module(
    module: nn.Module, x: Inputs
) -> tuple[Callable[[Array], Params], Callable[[Params, Inputs], Any]]:
    """``init`` and ``apply`` of a linen module without state."""
    one = jax.tree.map(lambda leaf: leaf[:1], x)

    def init(key: Array) -> Params:
        return module.init(key, one)["params"]

    def apply(params: Params, x: Inputs) -> Any:
        return module.apply({"params": params}, x)

    return init, apply


def cross_entropy(output: Array, y: Array) -> Array:
    """``(N,)`` of logits ``(N, ..., C)`` and labels ``(N, ...)``; a mean over positions."""
    each = optax.softmax_cross_entropy_with_integer_labels(output, y)
    return each.reshape(each.shape[0], -1).mean(axis=1)


def squared_error(output: Array, y: Array) -> Array:
    """``(N,)``; a mean over outputs."""
    return jnp.mean((output - y).reshape(output.shape[0], -1) ** 2, axis=1)


def scores_of(data: Dataset) -> tuple[int, LossFn, Callable[[str | None], Sequence[Collector]]]:
    """How many outputs these targets need, which loss, and what else is worth recording."""
    if np.issubdtype(data.y_train.dtype, np.integer):
        return int(data.y_train.max()) + 1, cross_entropy, _accuracy
    return int(data.y_train.shape[1]), squared_error, _nothing


def _accuracy(probe: str | None) -> Sequence[Collector]:
    return (nts.collectors.accuracy(probe=probe),)


def _nothing(probe: str | None) -> Sequence[Collector]:  # noqa: ARG001
    return ()
