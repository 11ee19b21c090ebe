"""Exclusive or, and the species of iris flowers, for networks of one hidden layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import ntkstats as nts
from ntkstats import landscape
from ntkstats.landscape._from_model import unraveler
from ntkstats.typing import Array, Params
from studies.datasets import iris

TEST_FRACTION = 0.5
"""Of the flowers; a half, so that accuracies have steps of 1/75."""

PROBE = 30
"""Training flowers on which the kernel is observed, ten of each species."""


SEPAL = 2
"""Its two lengths come first; with the petals, classes are so clear that minima are one or two."""


def xor_problem(hidden: int, l2: float) -> landscape.Problem:
    """The problem of the documentation, with its kernel observed on the four patterns."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    data = nts.Probe(x, np.array([0, 1, 1, 0]))
    return _problem(hidden, l2, data, data, f"XOR, {hidden} hidden units")


def iris_problem(hidden: int, l2: float, seed: int) -> landscape.Problem:
    """Species of iris from their sepals; observed are the kernel, and how well it does on a test.

    Parameters
    ----------
    hidden
        Number of tanh units.
    l2
        Weight decay.
    seed
        Decides which flowers are trained on, which are tested, and which hold the kernel.
    """
    flowers = iris(seed=seed, test_fraction=TEST_FRACTION)
    x_train, x_test = (x[:, :SEPAL] for x in (flowers.x_train, flowers.x_test))
    data = nts.Probe(x_train, flowers.y_train)
    probe = nts.Probe.from_dataset(
        jax.random.key(seed), x_train, flowers.y_train, n=PROBE, stratify=True
    )
    problem = _problem(hidden, l2, data, probe, f"iris, {hidden} hidden units")
    kernel = problem.observe
    assert kernel is not None
    unflatten = unraveler(_zeros(SEPAL, hidden, 3))
    labels = np.asarray(flowers.y_test)[:, None]

    def observe(theta: Array) -> Mapping[str, Array]:
        output = network(unflatten(theta), jnp.asarray(x_test, theta.dtype))
        picked = jnp.take_along_axis(jax.nn.log_softmax(output), labels, axis=1)
        right = jnp.argmax(output, axis=1) == labels[:, 0]
        return {
            **kernel(theta),
            "test_loss": -jnp.mean(picked),
            "test_accuracy": jnp.mean(right.astype(theta.dtype)),
        }

    return replace(problem, observe=observe)


def network(params: Params, x: Array) -> Array:
    """One hidden layer of tanh units; logits ``(N, classes)``."""
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def _zeros(inputs: int, hidden: int, classes: int) -> Params:
    return {
        "w1": jnp.zeros((inputs, hidden)),
        "b1": jnp.zeros(hidden),
        "w2": jnp.zeros((hidden, classes)),
        "b2": jnp.zeros(classes),
    }


def _problem(
    hidden: int, l2: float, data: nts.Probe, probe: nts.Probe, name: str
) -> landscape.Problem:
    params = _zeros(np.shape(data.x)[1], hidden, int(np.max(np.asarray(data.y))) + 1)
    units = landscape.hidden_units(params, [("w1", 1), ("b1", 0)], [("w2", 0)], odd=True)
    return landscape.problem_from_model(
        nts.as_model(network),
        params,
        data,
        "cross_entropy",
        l2=l2,
        symmetry=landscape.Symmetry((units,)),
        ntk=probe,
        name=name,
    )
