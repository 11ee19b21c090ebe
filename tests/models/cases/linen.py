"""Modules of flax linen."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from .base import KEY, TOKENS, Case, X, sgd, total


def _init(module: nn.Module, x: Any, **kwargs: Any) -> Any:
    keys = {"params": KEY, "dropout": KEY}
    return jax.jit(lambda x: module.init(keys, x, **kwargs))(x)


class LinenMLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Dense(6)(x)))


def _train_state() -> TrainState:
    params = _init(LinenMLP(), X)["params"]
    return TrainState.create(apply_fn=LinenMLP().apply, params=params, tx=optax.adam(0.05))


def _train_state_step(state: TrainState) -> TrainState:
    loss = lambda p: total(state.apply_fn({"params": p}, X))  # noqa: E731
    return jax.jit(lambda s: s.apply_gradients(grads=jax.grad(loss)(s.params)))(state)


LINEN = Case(
    "linen MLP in a TrainState",
    _train_state,
    lambda _: LinenMLP(),
    lambda obj, x: {"output": obj.apply_fn({"params": obj.params}, x)},
    _train_state_step,
)


class LinenBatchNorm(nn.Module):
    """Dropout and batch norm behind one switch that defaults to training."""

    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.relu(nn.Dense(6)(x))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(2)(x)


def _linen_bn_step(variables: Any) -> Any:
    def loss(params: Any) -> Any:
        out, new = LinenBatchNorm().apply(
            {**variables, "params": params},
            X,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": KEY},
        )
        return total(out), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    params = jax.tree.map(lambda p, g: p - 0.05 * g, variables["params"], grads)
    return {"params": params, **new}


LINEN_BN = Case(
    "linen batch norm and dropout, variables",
    lambda: _init(LinenBatchNorm(), X),
    lambda _: LinenBatchNorm(),
    lambda obj, x: {"output": LinenBatchNorm().apply(obj, x, train=False)},
    _linen_bn_step,
    has_batch_statistics=True,
)


class BatchNormState(TrainState):
    batch_stats: Any


def _linen_bn_state() -> BatchNormState:
    variables = LINEN_BN.build()
    return BatchNormState.create(
        apply_fn=LinenBatchNorm().apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.sgd(0.05),
    )


def _variables(state: BatchNormState) -> Any:
    return {"params": state.params, "batch_stats": state.batch_stats}


LINEN_BN_STATE = Case(
    "linen batch norm and dropout in a TrainState, by its apply_fn",
    _linen_bn_state,
    lambda obj: obj.apply_fn,
    lambda obj, x: LINEN_BN.oracle(_variables(obj), x),
    lambda obj: obj.replace(**_linen_bn_step(_variables(obj))),
    has_batch_statistics=True,
)


class LinenActorCritic(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(6)(x))
        return nn.Dense(3)(x), nn.Dense(1)(x)[:, 0]


LINEN_HEADS = Case(
    "linen actor-critic",
    lambda: _init(LinenActorCritic(), X),
    lambda _: LinenActorCritic(),
    lambda obj, x: dict(zip(("actor", "critic"), LinenActorCritic().apply(obj, x), strict=True)),
    lambda obj: sgd(obj, lambda v: total(LinenActorCritic().apply(v, X))),
    options={"heads": ("actor", "critic")},
)


class LinenTransformer(nn.Module):
    """One masked attention block over tokens that come with their padding mask."""

    @nn.compact
    def __call__(self, x, *, deterministic: bool = False):
        mask = x["mask"]
        h = nn.Embed(9, 8)(x["tokens"])
        attention = nn.MultiHeadDotProductAttention(num_heads=2, dropout_rate=0.1)
        pairs = mask[:, None, None, :] & mask[:, None, :, None]
        h = nn.LayerNorm()(h + attention(h, mask=pairs, deterministic=deterministic))
        pooled = jnp.sum(h * mask[..., None], 1) / jnp.sum(mask, 1, keepdims=True)
        return nn.Dense(2)(pooled)


def _evaluated_transformer(variables: Any, x: Any) -> jax.Array:
    return LinenTransformer().apply(variables, x, deterministic=True)


LINEN_TRANSFORMER = Case(
    "linen transformer with mask",
    lambda: _init(LinenTransformer(), TOKENS, deterministic=True),
    lambda _: LinenTransformer(),
    lambda obj, x: {"output": _evaluated_transformer(obj, x)},
    lambda obj: sgd(obj, lambda v: total(_evaluated_transformer(v, TOKENS))),
    x=TOKENS,
)
