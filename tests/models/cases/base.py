"""What a way to write a model is tested with, and the inputs of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

N = 5
KEY = jax.random.key(0)
X = np.asarray(jax.random.normal(jax.random.key(1), (N, 4)))
IMAGES = np.asarray(jax.random.normal(jax.random.key(2), (N, 6, 6, 1)))
TOKENS = {
    "tokens": np.asarray(jax.random.randint(jax.random.key(3), (N, 6), 0, 9)),
    "mask": np.arange(6) < np.array([6, 2, 4, 1, 5])[:, None],
}


@dataclass(frozen=True, eq=False)
class Case:
    """A network in its framework.

    `network` goes to `as_model`, `build()` makes what a loop holds, `oracle(obj, x)` is the
    framework's own evaluation, `train(obj)` takes one step (in place where that is the
    framework's way) and returns what the loop then holds.
    """

    name: str
    build: Callable[[], Any]
    network: Callable[[Any], Any]
    oracle: Callable[[Any, Any], Mapping[str, Any]]
    train: Callable[[Any], Any]
    x: Any = field(default_factory=lambda: X)
    options: Mapping[str, Any] = field(default_factory=dict)
    has_batch_statistics: bool = False


def named(out: Any) -> Mapping[str, Any]:
    return out if isinstance(out, Mapping) else {"output": out}


def total(out: Any) -> jax.Array:
    return sum(jnp.sum(jnp.square(value)) for value in jax.tree.leaves(out))


def sgd(params: Any, loss: Callable[[Any], jax.Array]) -> Any:
    return jax.tree.map(lambda p, g: p - 0.05 * g, params, jax.jit(jax.grad(loss))(params))
