"""One split of a data set with its network: what is picked from, and what is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ntkstats as nts
from ntkstats import selection
from ntkstats.kernels import empirical_ntk
from ntkstats.typing import Array
from studies._errors import StudyError
from studies.data_selection._networks import Network, convolutional, dense
from studies.data_selection._tiers import Picking, Sizes
from studies.datasets import load

SPLITS = 10_000
"""Seeds of splits a seed of the study."""

Part = tuple[np.ndarray, np.ndarray]


class Case(NamedTuple):
    """One repeat.

    Attributes
    ----------
    pool, validation, test
        Inputs and targets.
    network, distilled
        What is trained on a set, and what `RND` trains.
    loss, metrics
        One value a sample.
    classes
        Number of classes; 0 for values.
    keys
        ``(seeds,)`` of the trainings; their untrained networks give the kernels.
    key
        Of everything that picks.
    """

    pool: Part
    validation: Part
    test: Part
    network: Network
    distilled: Network
    loss: Callable[[Array, Array], Array]
    metrics: Mapping[str, Callable[[Array, Array], Array]]
    classes: int
    keys: Array
    key: Array


def case(sizes: Sizes, picking: Picking, seed: int, repeat: int) -> Case:
    """Split the data anew, standardised by the training part of that split.

    Raises
    ------
    StudyError
        The data set is too small for these sizes.
    """
    data: Any = load(sizes.dataset, seed=seed * SPLITS + repeat)
    wanted = sizes.pool + sizes.validation, sizes.test
    if len(data.y_train) < wanted[0] or len(data.y_test) < wanted[1]:
        msg = (
            f"{sizes.dataset} has {len(data.y_train)} training and {len(data.y_test)} test "
            f"samples; expected {wanted[0]} and {wanted[1]} for this tier."
        )
        raise StudyError(msg)
    x, x_test = (_shrunk(part, sizes.shrink) for part in (data.x_train, data.x_test))
    classification = np.issubdtype(data.y_train.dtype, np.integer)
    classes = int(data.y_train.max()) + 1 if classification else 0
    end = sizes.pool + sizes.validation
    key, train_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), repeat))
    build = _network(sizes, x.shape[1:])
    hidden = sizes.widths if sizes.network == "convolutional" else (picking.width,) * 2
    return Case(
        (x[: sizes.pool], data.y_train[: sizes.pool]),
        (x[sizes.pool : end], data.y_train[sizes.pool : end]),
        (x_test[: sizes.test], data.y_test[: sizes.test]),
        build(sizes.widths, classes or 1),
        build(hidden, picking.outputs),
        cross_entropy if classes else squared,
        {"accuracy": correct} if classes else {},
        classes,
        jax.random.split(train_key, sizes.seeds),
        key,
    )


def kernels(made: Case) -> list[Any]:
    """The trace NTK over the pool of every network that will be trained, untrained."""
    model = nts.as_model(made.network.apply)
    found = []
    for key in made.keys:
        # score_trained draws initial weights from the first half of the key.
        params, state = model.split(made.network.init(jax.random.split(key)[0]))
        kernel = empirical_ntk(model, params, state, made.pool[0], outputs="trace")
        found.append(selection.dense(kernel.matrix))
    return found


def prior(made: Case, outputs: int, key: Array) -> Any:
    """The NNGP kernel over the pool, estimated from random networks with that many outputs."""
    draws = max(1, outputs // max(made.classes, 1))
    x = jnp.asarray(made.pool[0])

    def one(key: Array) -> Array:
        return made.network.apply(made.network.init(key), x)

    out = jax.lax.map(one, jax.random.split(key, draws))
    flat = jnp.moveaxis(out, 0, 1).reshape(x.shape[0], -1)
    return selection.linear(flat / flat.shape[1] ** 0.5)


def clusters(x: np.ndarray, count: int, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Nearest of ``count`` medoids of k-means for every row, and the distance to it."""
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    pool = selection.Pool(kernel=selection.linear(flat))
    medoids = flat[np.asarray(selection.select(selection.KMedoids(), key, pool, count).indices)]
    return nearest(flat, medoids)


def nearest(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which center is nearest to every row, and how far it is."""
    distance = np.linalg.norm(x[:, None] - centers[None], axis=-1)
    return distance.argmin(1).astype(np.int32), distance.min(1)


def squared(output: Array, y: Array) -> Array:
    """Squared error of values."""
    return jnp.mean((output - y) ** 2, axis=-1)


def cross_entropy(output: Array, y: Array) -> Array:
    """Cross entropy of classes [nat]."""
    return optax.softmax_cross_entropy_with_integer_labels(output, y)


def correct(output: Array, y: Array) -> Array:
    """1 where the class is right."""
    return (jnp.argmax(output, axis=-1) == y).astype(output.dtype)


def _network(sizes: Sizes, shape: tuple[int, ...]) -> Callable[[tuple[int, ...], int], Network]:
    def build(hidden: tuple[int, ...], outputs: int) -> Network:
        if sizes.network == "convolutional":
            return convolutional(shape[0], hidden, outputs)
        return dense((int(np.prod(shape)), *hidden, outputs))

    return build


def _shrunk(x: np.ndarray, by: int) -> np.ndarray:
    if by == 1:
        return x
    n, h, w, c = x.shape
    return x.reshape(n, h // by, by, w // by, by, c).mean((2, 4)).astype(np.float32)
