"""Dense networks in the ways that researchers write them, graphs, and shared weights."""

from __future__ import annotations

import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ..networks import System
from .building import dense_layer, draw, made, of_linen, whole_numbers

N = 5
X = draw(N, 6, seed=1)


def affine(layer, x):
    return x @ layer["w"] + layer["b"]


def stack(sizes, seed):
    return [dense_layer(a, b, seed + i) for i, (a, b) in enumerate(itertools.pairwise(sizes))]


def run(layers, x, activation=jnp.tanh):
    """Dense layers with an activation between them."""
    for layer in layers[:-1]:
        x = activation(affine(layer, x))
    return affine(layers[-1], x)


def mlp():
    return made(run, stack((6, 16, 12, 4), 2), X)


# --- activations and parametrisations ---------------------------------------------------------


@jax.custom_jvp
def softsign(x):
    """An activation with its own forward derivative."""
    return x / (1 + jnp.abs(x))


@softsign.defjvp
def _softsign_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return softsign(x), t / (1 + jnp.abs(x)) ** 2


@jax.custom_vjp
def shrink(x):
    """An activation with its own backward pass."""
    return x * jnp.exp(-jnp.square(x) / 8)


def _shrink_forward(x):
    return shrink(x), x


def _shrink_backward(x, g):
    return (g * (1 - jnp.square(x) / 4) * jnp.exp(-jnp.square(x) / 8),)


shrink.defvjp(_shrink_forward, _shrink_backward)


@partial(jax.jit, static_argnames="activation")
def jitted_layer(layer, x, activation):
    return activation(affine(layer, x))


@jax.jit
def custom_network(params, x):
    """Python-level jit around jitted layers with hand-written derivatives."""
    x = jitted_layer(params[0], x, softsign)
    x = jitted_layer(params[1], x, shrink)
    return jitted_layer(params[2], x, lambda y: y)


def custom_rules():
    return made(custom_network, stack((6, 14, 10, 3), 5), X)


def ntk_layer(layer, x):
    """Unit-variance weights; the width enters in the forward pass."""
    return x @ (layer["w"] / layer["w"].shape[0] ** 0.5) + 0.3 * layer["b"]


def ntk_network(params, x):
    for layer in params[:-1]:
        x = 2**0.5 * jax.nn.relu(ntk_layer(layer, x))
    return ntk_layer(params[-1], x)


def ntk_parametrisation():
    shapes = ((6, 24), (24, 24), (24, 3))
    params = [
        {"w": draw(a, b, seed=i), "b": draw(b, seed=9 + i)} for i, (a, b) in enumerate(shapes)
    ]
    return made(ntk_network, params, X)


class WeightNormalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.WeightNorm(nn.Dense(12))(x))
        return nn.WeightNorm(nn.Dense(3))(x)


def weight_norm():
    return of_linen(WeightNormalised(), X)


# --- shared and tied weights ------------------------------------------------------------------


def thrice(params, x):
    """One layer used three times."""
    x = jnp.tanh(x @ params["in"])
    for _ in range(3):
        x = x + jnp.tanh(affine(params["shared"], x))
    return x @ params["out"]


def shared():
    params = {
        "in": draw(6, 10, seed=1),
        "shared": dense_layer(10, 10, 2),
        "out": draw(10, 3, seed=3),
    }
    return made(thrice, params, X)


def tied_network(params, x):
    """The decoder is the transposed encoder."""
    code = jnp.tanh(x @ params["w1"] + params["b1"])
    code = jnp.tanh(code @ params["w2"] + params["b2"])
    hidden = jnp.tanh(code @ params["w2"].T + params["c2"])
    return hidden @ params["w1"].T + params["c1"]


def tied_autoencoder():
    shapes = {"w1": (6, 10), "w2": (10, 3), "b1": (10,), "b2": (3,), "c2": (10,), "c1": (6,)}
    params = {
        name: draw(*shape, seed=i, scale=0.4) for i, (name, shape) in enumerate(shapes.items())
    }
    return made(tied_network, params, X)


def adapted_network(params, x):
    """Frozen weights and their low-rank updates."""
    for i, layer in enumerate(params):
        x = affine(layer, x) + (x @ layer["lora_a"]) @ layer["lora_b"]
        x = jax.nn.gelu(x) if i < len(params) - 1 else x
    return x


def lora():
    sizes = ((6, 16), (16, 16), (16, 3))
    params = [
        {
            **dense_layer(a, b, i),
            "lora_a": draw(a, 2, seed=5 + i, scale=a**-0.5),
            "lora_b": np.zeros((2, b), np.float32),
        }
        for i, (a, b) in enumerate(sizes)
    ]
    return made(adapted_network, params, X, params_filter="*/lora_*")


def routed(params, x):
    """Every token goes to two of four experts, which are computed in one batched product."""
    h = jnp.tanh(x @ params["embed"])  # (N, tokens, d)
    probability = jax.nn.softmax(h @ params["router"])
    best = jax.lax.top_k(probability, 2)[0][..., 1:]
    gate = jnp.where(probability >= best, probability, 0)
    gate = gate / gate.sum(-1, keepdims=True)
    inner = jnp.einsum("btd,edh->beth", h, params["up"]) + params["up_bias"][:, None]
    outer = jnp.einsum("beth,ehd->betd", jax.nn.silu(inner), params["down"])
    h = h + jnp.einsum("betd,bte->btd", outer, gate)
    return h.mean(1) @ params["out"]


def experts():
    shapes = {
        "embed": (5, 8),
        "router": (8, 4),
        "up": (4, 8, 12),
        "up_bias": (4, 12),
        "down": (4, 12, 8),
        "out": (8, 3),
    }
    params = {
        name: draw(*shape, seed=i, scale=0.4) for i, (name, shape) in enumerate(shapes.items())
    }
    return made(routed, params, draw(N, 7, 5, seed=11))


def bag_of_tokens(params, tokens):
    """A classifier by the mean of its words' vectors, each through a hidden layer."""
    h = jnp.tanh(affine(params["hidden"], params["embedding"][tokens]))
    return affine(params["out"], h.mean(1))


def words():
    params = {
        "embedding": draw(40, 16, seed=1),
        "hidden": dense_layer(16, 20, 2),
        "out": dense_layer(20, 3, 3),
    }
    return made(bag_of_tokens, params, whole_numbers(40, N, 3, seed=4))


# --- several heads ----------------------------------------------------------------------------


OBSERVATIONS = draw(N, 16, seed=7)


class ActorCritic(nn.Module):
    """Policy logits and value over one torso."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.tanh(nn.Dense(32)(x))
        return {"actor": nn.Dense(4, name="actor")(x), "critic": nn.Dense(1, name="critic")(x)}


def actor():
    return of_linen(ActorCritic(), OBSERVATIONS, "actor")


def critic():
    return of_linen(ActorCritic(), OBSERVATIONS, "critic")


# --- graphs -----------------------------------------------------------------------------------

NODES, EDGES = 6, 10


def message_passing(params, graph):
    """Two rounds of messages on one padded graph, then a sum over its nodes."""
    h = jnp.tanh(affine(params["encode"], graph["nodes"]))
    for layer in params["rounds"]:
        ends = [h[graph["senders"]], h[graph["receivers"]], graph["edges"]]
        messages = run(layer["message"], jnp.concatenate(ends, -1), jax.nn.silu)
        messages = messages * graph["edge_mask"][:, None]
        received = jax.ops.segment_sum(messages, graph["receivers"], NODES)
        h = h + jnp.tanh(affine(layer["update"], jnp.concatenate([h, received], -1)))
    pooled = jnp.sum(h * graph["node_mask"][:, None], 0)
    return affine(params["readout"], pooled)


def padded_graphs():
    """Graphs of 3 to 6 nodes and 4 to 10 edges; padding edges join the last node to itself."""
    n_nodes, n_edges = np.array([6, 3, 5, 4, 6]), np.array([10, 4, 7, 6, 8])
    real = np.arange(EDGES) < n_edges[:, None]
    rng = np.random.default_rng(4)
    ends = [
        np.where(real, rng.integers(0, n_nodes[:, None], (N, EDGES)), NODES - 1) for _ in range(2)
    ]
    return {
        "nodes": draw(N, NODES, 4, seed=5),
        "edges": draw(N, EDGES, 2, seed=6),
        "senders": ends[0],
        "receivers": ends[1],
        "node_mask": np.arange(NODES) < n_nodes[:, None],
        "edge_mask": real,
    }


def graph():
    params = {
        "encode": dense_layer(4, 8, 0),
        "rounds": [
            {"message": stack((18, 10, 8), 10 * i), "update": dense_layer(16, 8, 10 * i + 5)}
            for i in (1, 2)
        ],
        "readout": dense_layer(8, 3, 7),
    }
    return made(message_passing, params, padded_graphs(), per_sample=True)


# --- neural-tangents --------------------------------------------------------------------------


def stax() -> System:
    """A convolutional network of neural-tangents in its own (NTK) parametrisation."""
    from ntkstats._compat import import_neural_tangents

    stax = import_neural_tangents().stax
    network = stax.serial(
        stax.Conv(6, (3, 3), strides=(2, 2), padding="SAME"),
        stax.Relu(),
        stax.Conv(6, (2, 2), padding="VALID"),
        stax.Relu(),
        stax.Flatten(),
        stax.Dense(3),
    )
    x = draw(N, 6, 6, 2, seed=8)
    return made(network, network[0](jax.random.PRNGKey(0), (-1, 6, 6, 2))[1], x)


SYSTEMS = {
    "mlp": mlp,
    "custom_rules": custom_rules,
    "ntk_parametrisation": ntk_parametrisation,
    "weight_norm": weight_norm,
    "shared": shared,
    "tied_autoencoder": tied_autoencoder,
    "lora": lora,
    "experts": experts,
    "words": words,
    "actor": actor,
    "critic": critic,
    "graph": graph,
    "stax": stax,
}
