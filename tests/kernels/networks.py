"""Small networks of every kind, each with parameters and inputs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.models import Model, as_model

from ..models import cases
from .oracle import leaf_jacobians

N = 6
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 4)).astype(np.float32)
IMAGES = RNG.normal(size=(N, 7, 7, 2)).astype(np.float32)
GRAPH = {
    "features": RNG.normal(size=(N, 3)).astype(np.float32),
    "neighbours": np.roll(np.eye(N), 1, 0).astype(np.float32) + np.eye(N, dtype=np.float32),
}
# Drawn here, so that they are the same whichever systems a process builds before.
TOKENS = RNG.integers(0, 7, (N, 5))
GRAPH_WEIGHTS = {"in": RNG.normal(size=(3, 5)), "out": RNG.normal(size=(5, 2))}


class System(NamedTuple):
    """A model, its parameters and state, and inputs."""

    model: Model
    params: Any
    state: Any
    x: Any
    head: str = "output"

    def on(self, x):
        """The same network on other inputs."""
        return self._replace(x=x)

    @property
    def arguments(self):
        """What every door takes first."""
        return self.model, self.params, self.state, self.x


class StridedCNN(nn.Module):
    """Two convolutions with strides and SAME padding, an odd image size."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(3, (3, 3), strides=(2, 2), padding="SAME")(x))
        x = nn.tanh(nn.Conv(4, (2, 2), strides=(1, 2), padding="SAME")(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class Embedded(nn.Module):
    """Tokens in, logits out."""

    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(3)(nn.tanh(nn.Dense(5)(nn.Embed(7, 4)(tokens).mean(1))))


def graph_network(params, x):
    """Outputs of the nodes of one graph: every node sees its neighbour."""
    hidden = jnp.tanh(x["neighbours"] @ x["features"] @ params["in"])
    return x["neighbours"] @ hidden @ params["out"]


def retiled(plan, tiling):
    """The same plan with other tiles, for the matrix and for the diagonal."""
    streams = plan.streams and tuple(s._replace(tiling=tiling) for s in plan.streams)
    diagonal = tuple(s._replace(tiling=tiling) for s in plan.diagonal_streams)
    return dataclasses.replace(plan, streams=streams, diagonal_streams=diagonal)


def mlp_params(sizes=(4, 6, 3), seed=0, dtype=jnp.float32):
    """Weights and biases, none of them zero."""
    rng = np.random.default_rng(seed)
    return [
        (
            jnp.asarray(rng.normal(size=(a, b)) / a**0.5, dtype),
            jnp.asarray(rng.normal(size=b), dtype),
        )
        for a, b in itertools.pairwise(sizes)
    ]


def _built(module, x):
    model = as_model(module)
    return System(model, *model.split(jax.jit(module.init)(jax.random.key(0), x)), x)


def _case(case, head="output"):
    obj = case.build()
    model = as_model(case.network(obj), **case.options)
    return System(model, *model.split(obj), case.x, head)


def _plain(function, params, x, **options):
    model = as_model(function, **options)
    return System(model, *model.split(params), x)


SYSTEMS = {
    "mlp": lambda: _plain(cases.plain_mlp, mlp_params(), X),
    "cnn": lambda: _built(StridedCNN(), IMAGES),
    "embedding": lambda: _built(Embedded(), TOKENS),
    "transformer": lambda: _case(cases.LINEN_TRANSFORMER),
    "nnx": lambda: _case(cases.NNX_BN),
    "equinox": lambda: _case(cases.EQX_MLP),
    "actor": lambda: _case(cases.PLAIN_HEADS, "actor"),
    "critic": lambda: _case(cases.PLAIN_HEADS, "critic"),
    "filtered": lambda: _case(cases.FILTERED),
    "graph": lambda: _plain(
        graph_network, jax.tree.map(jnp.asarray, GRAPH_WEIGHTS), GRAPH, coupled=True
    ),
}


@functools.cache
def system(name: str) -> System:
    """One of `SYSTEMS`, built once."""
    return SYSTEMS[name]()


@functools.cache
def dense_leaves(name: str) -> list[np.ndarray]:
    """Its Jacobian, one array (N, C, P_leaf) for each parameter leaf, in float64."""
    s = system(name)
    return leaf_jacobians(*s.arguments, s.head)


@functools.cache
def dense(name: str) -> np.ndarray:
    """Its Jacobian (N, C, P) in float64."""
    return np.concatenate(dense_leaves(name), axis=-1)
