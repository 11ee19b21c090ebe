"""Modules of equinox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .base import IMAGES, KEY, Case, N, X, named, total


def _eqx_oracle(module: Any, x: Any) -> Mapping[str, Any]:
    return named(jax.vmap(eqx.nn.inference_mode(module))(x))


def _eqx_step(module: Any) -> Any:
    grads = eqx.filter_jit(eqx.filter_grad(lambda m: total(jax.vmap(m)(X))))(module)
    return eqx.apply_updates(module, jax.tree.map(lambda g: -0.05 * g, grads))


EQX_MLP = Case(
    "equinox MLP",
    lambda: eqx.nn.MLP(4, 2, 6, 1, key=KEY),
    lambda obj: obj,
    _eqx_oracle,
    _eqx_step,
)


class EqxBatchNorm(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        k1, k2 = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, 3, 3, stride=2, key=k1)
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch", momentum=0.5)
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(12, 2, key=k2)

    def __call__(self, x, state, *, key=None):
        h, state = self.norm(self.conv(jnp.moveaxis(x, -1, 0)), state)
        return self.head(self.dropout(jax.nn.relu(h).ravel(), key=key)), state


def _eqx_bn_oracle(obj: Any, x: Any) -> Mapping[str, Any]:
    module, state = obj
    module = eqx.nn.inference_mode(module)
    out, _ = jax.vmap(module, in_axes=(0, None), out_axes=(0, None))(x, state)
    return {"output": out}


def _eqx_bn_step(obj: Any) -> Any:
    module, state = obj

    def loss(m: Any) -> Any:
        run = lambda x, k: m(x, state, key=k)  # noqa: E731
        out, new = jax.vmap(run, axis_name="batch", out_axes=(0, None))(
            IMAGES, jax.random.split(KEY, N)
        )
        return total(out), new

    grads, new = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(module)
    return eqx.apply_updates(module, jax.tree.map(lambda g: -0.05 * g, grads)), new


EQX_BN = Case(
    "equinox convolution and batch norm",
    lambda: eqx.nn.make_with_state(EqxBatchNorm)(KEY),
    lambda obj: obj,
    _eqx_bn_oracle,
    _eqx_bn_step,
    x=IMAGES,
    has_batch_statistics=True,
)


class EqxActorCritic(eqx.Module):
    trunk: eqx.nn.Linear
    actor: eqx.nn.Linear
    critic: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jax.random.split(key, 3)
        self.trunk = eqx.nn.Linear(4, 6, key=k1)
        self.actor = eqx.nn.Linear(6, 3, key=k2)
        self.critic = eqx.nn.Linear(6, "scalar", key=k3)

    def __call__(self, x):
        x = jnp.tanh(self.trunk(x))
        return {"actor": self.actor(x), "critic": self.critic(x)}


EQX_HEADS = Case(
    "equinox actor-critic",
    lambda: EqxActorCritic(KEY),
    lambda obj: obj,
    _eqx_oracle,
    _eqx_step,
)
