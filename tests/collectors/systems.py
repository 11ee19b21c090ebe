"""Small real systems on which collectors are tested."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from ntkstats.collectors import Snapshot
from ntkstats.models import Model, Probe, as_model


class System(NamedTuple):
    """A model, its parameters, a probe on real data, and a test probe."""

    model: Model
    params: Any
    probe: Probe
    test: Probe


def mlp(params: Any, x: jax.Array) -> jax.Array:
    for w, b in params[:-1]:
        x = jax.nn.tanh(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def mlp_params(seed: int, sizes: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    return [
        (jax.random.normal(k, (a, b)) / np.sqrt(a), 0.1 * jax.random.normal(k, (b,)))
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)
    ]


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int32)


def shot(system: System, params: Any = None, step: int = 0, **extras: Any) -> Snapshot:
    """The snapshot a recorder would take of these parameters (default the system's own)."""
    params = system.params if params is None else params
    return Snapshot(step, *system.model.split(params), extras)


def classifier(n: int = 14) -> System:
    x, y = digits()
    return System(
        as_model(mlp),
        mlp_params(0, (64, 12, 10)),
        Probe(x[:n], y[:n]),
        Probe(x[100 : 100 + n], y[100 : 100 + n], name="test"),
    )


def actor_critic(n: int = 9) -> System:
    x, y = digits()

    def apply(params: Any, x: jax.Array) -> dict[str, jax.Array]:
        hidden = jax.nn.tanh(x @ params["torso"])
        return {"actor": hidden @ params["actor"], "critic": (hidden @ params["critic"])[:, 0]}

    keys = jax.random.split(jax.random.key(1), 3)
    params = {
        "torso": jax.random.normal(keys[0], (64, 8)) / 8,
        "actor": jax.random.normal(keys[1], (8, 4)) / 3,
        "critic": jax.random.normal(keys[2], (8, 1)) / 3,
    }
    return System(as_model(apply), params, Probe(x[:n], y[:n]), Probe(x[n : 2 * n], name="test"))


def dense_jacobian(system: System, head: str = "output") -> np.ndarray:
    """``(N, C, P)`` in float64, by forward evaluation of `jacrev` on the whole batch."""
    with jax.enable_x64(True):
        params, state = system.model.split(system.params)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        x = jnp.asarray(system.probe.x, jnp.float64)
        jac = jax.jacrev(lambda p: system.model.apply(p, state, x)[head])(params)
        n = x.shape[0]
        leaves = [
            np.asarray(leaf).reshape(n, -1, size)
            for leaf, size in zip(
                jax.tree.leaves(jac), [p.size for p in jax.tree.leaves(params)], strict=True
            )
        ]
    return np.concatenate(leaves, axis=-1)
