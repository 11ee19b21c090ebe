"""Modules of flax nnx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from .base import IMAGES, Case, X, named, total


def _nnx_oracle(module: nnx.Module, x: Any) -> Mapping[str, Any]:
    twin = nnx.clone(module)
    twin.eval()
    return named(twin(x))


def _nnx_step(module: nnx.Module, x: Any) -> nnx.Module:
    """Update parameters, batch statistics and random counters in place."""
    grads = nnx.grad(lambda m: total(m(x)))(module)
    params = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda p, g: p - 0.05 * g, params, grads))
    return module


NNX_MLP = Case(
    "nnx Sequential",
    lambda: nnx.Sequential(
        nnx.Linear(4, 6, rngs=nnx.Rngs(0)), nnx.tanh, nnx.Linear(6, 2, rngs=nnx.Rngs(1))
    ),
    lambda obj: obj,
    _nnx_oracle,
    lambda obj: _nnx_step(obj, X),
)


class NnxBatchNorm(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.relu(self.norm(self.linear(x)))))


NNX_BN = Case(
    "nnx batch norm and dropout",
    lambda: NnxBatchNorm(nnx.Rngs(0)),
    lambda obj: obj,
    _nnx_oracle,
    lambda obj: _nnx_step(obj, X),
    has_batch_statistics=True,
)


class NnxConv(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(27, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x)).reshape(x.shape[0], -1))


NNX_CONV = Case(
    "nnx convolution",
    lambda: NnxConv(nnx.Rngs(0)),
    lambda obj: obj,
    _nnx_oracle,
    lambda obj: _nnx_step(obj, IMAGES),
    x=IMAGES,
)


class NnxActorCritic(nnx.Module):
    def __init__(self, rngs):
        self.trunk = nnx.Linear(4, 6, rngs=rngs)
        self.actor = nnx.Linear(6, 3, rngs=rngs)
        self.critic = nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, x):
        x = nnx.tanh(self.trunk(x))
        return {"actor": self.actor(x), "critic": self.critic(x)[:, 0]}


NNX_HEADS = Case(
    "nnx actor-critic",
    lambda: NnxActorCritic(nnx.Rngs(0)),
    lambda obj: obj,
    _nnx_oracle,
    lambda obj: _nnx_step(obj, X),
)
