"""Plain functions and their parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats._compat import import_neural_tangents

from .base import KEY, Case, X, sgd, total


def _init_dense(key: jax.Array, n_in: int, n_out: int) -> tuple[jax.Array, jax.Array]:
    return jax.random.normal(key, (n_in, n_out)) / n_in**0.5, jnp.zeros(n_out)


def plain_mlp(params: Any, x: Any) -> jax.Array:
    for w, b in params[:-1]:
        x = jnp.tanh(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def _plain_params() -> Any:
    k1, k2 = jax.random.split(KEY)
    return [_init_dense(k1, 4, 6), _init_dense(k2, 6, 3)]


PLAIN = Case(
    "plain MLP",
    _plain_params,
    lambda _: plain_mlp,
    lambda obj, x: {"output": plain_mlp(obj, x)},
    lambda obj: sgd(obj, lambda p: total(plain_mlp(p, X))),
)

FILTERED = Case(
    "plain MLP, last layer only",
    _plain_params,
    lambda _: plain_mlp,
    PLAIN.oracle,
    PLAIN.train,
    options={"params_filter": "1/*"},
)


def _whitened(params: Any, state: Any, x: Any) -> jax.Array:
    return plain_mlp(params, (x - state["mean"]) / state["count"])


STATEFUL = Case(
    "plain MLP with state",
    lambda: (_plain_params(), {"mean": jnp.zeros(4), "count": jnp.array(1)}),
    lambda _: _whitened,
    lambda obj, x: {"output": _whitened(*obj, x)},
    lambda obj: (
        sgd(obj[0], lambda p: total(_whitened(p, obj[1], X))),
        {"mean": jnp.asarray(X.mean(0)), "count": obj[1]["count"] + 1},
    ),
    options={"has_state": True},
    has_batch_statistics=True,
)


class Heads(NamedTuple):
    actor: Any
    critic: Any


def _plain_heads(params: Any, x: Any) -> Heads:
    hidden = jnp.tanh(x @ params["trunk"])
    return Heads(hidden @ params["actor"], (hidden @ params["critic"])[:, 0])


PLAIN_HEADS = Case(
    "plain actor-critic",
    lambda: {
        name: jax.random.normal(jax.random.fold_in(KEY, i), shape)
        for i, (name, shape) in enumerate(
            {"trunk": (4, 6), "actor": (6, 3), "critic": (6, 1)}.items()
        )
    },
    lambda _: _plain_heads,
    lambda obj, x: _plain_heads(obj, x)._asdict(),
    lambda obj: sgd(obj, lambda p: total(_plain_heads(p, X))),
)


def _stax_network() -> Any:
    stax = import_neural_tangents().stax
    return stax.serial(stax.Dense(6), stax.Relu(), stax.Dense(2))


_STAX: list[Any] = []


def stax_triple() -> Any:
    if not _STAX:
        _STAX.append(_stax_network())
    return _STAX[0]


STAX = Case(
    "stax network",
    lambda: stax_triple()[0](jax.random.PRNGKey(0), (-1, 4))[1],
    lambda _: stax_triple(),
    lambda obj, x: {"output": stax_triple()[1](obj, x)},
    lambda obj: sgd(obj, lambda p: total(stax_triple()[1](p, X))),
)
