"""Real small networks of every supported framework, each with a training step and an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.training.train_state import TrainState

from ntkstats._compat import import_neural_tangents

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


def _named(out: Any) -> Mapping[str, Any]:
    return out if isinstance(out, Mapping) else {"output": out}


def _total(out: Any) -> jax.Array:
    return sum(jnp.sum(jnp.square(value)) for value in jax.tree.leaves(out))


def _sgd(params: Any, loss: Callable[[Any], jax.Array]) -> Any:
    return jax.tree.map(lambda p, g: p - 0.05 * g, params, jax.jit(jax.grad(loss))(params))


# --- plain functions --------------------------------------------------------------------------


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
    lambda obj: _sgd(obj, lambda p: _total(plain_mlp(p, X))),
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
        _sgd(obj[0], lambda p: _total(_whitened(p, obj[1], X))),
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
    lambda obj: _sgd(obj, lambda p: _total(_plain_heads(p, X))),
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
    lambda obj: _sgd(obj, lambda p: _total(stax_triple()[1](p, X))),
)

# --- flax linen -------------------------------------------------------------------------------


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
    loss = lambda p: _total(state.apply_fn({"params": p}, X))  # noqa: E731
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
        return _total(out), new

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
    lambda obj: _sgd(obj, lambda v: _total(LinenActorCritic().apply(v, X))),
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
    lambda obj: _sgd(obj, lambda v: _total(_evaluated_transformer(v, TOKENS))),
    x=TOKENS,
)

# --- flax nnx ---------------------------------------------------------------------------------


def _nnx_oracle(module: nnx.Module, x: Any) -> Mapping[str, Any]:
    twin = nnx.clone(module)
    twin.eval()
    return _named(twin(x))


def _nnx_step(module: nnx.Module, x: Any) -> nnx.Module:
    """Update parameters, batch statistics and random counters in place."""
    grads = nnx.grad(lambda m: _total(m(x)))(module)
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

# --- equinox ----------------------------------------------------------------------------------


def _eqx_oracle(module: Any, x: Any) -> Mapping[str, Any]:
    return _named(jax.vmap(eqx.nn.inference_mode(module))(x))


def _eqx_step(module: Any) -> Any:
    grads = eqx.filter_jit(eqx.filter_grad(lambda m: _total(jax.vmap(m)(X))))(module)
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
        return _total(out), new

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

CASES = (
    PLAIN,
    FILTERED,
    STATEFUL,
    PLAIN_HEADS,
    STAX,
    LINEN,
    LINEN_BN,
    LINEN_BN_STATE,
    LINEN_HEADS,
    LINEN_TRANSFORMER,
    NNX_MLP,
    NNX_BN,
    NNX_CONV,
    NNX_HEADS,
    EQX_MLP,
    EQX_BN,
    EQX_HEADS,
)
