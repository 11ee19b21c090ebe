"""Graph networks: a number for each of many small graphs, or a class for each node of one.

The kernel is that of the prediction for a graph, or of the logits of a node. A node is a sample:
the network is a function of its number, with the whole graph inside, so samples do not interact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
from flax import linen as nn

import ntkstats as nts
from ntkstats.typing import Array, Inputs, Params
from studies._settings import setting
from studies.datasets import Graph, Graphs
from studies.systems._layers import ACTIVATIONS, initialiser
from studies.systems._options import Activation, Init, Learning, positive
from studies.systems._supervised import Problem, fit, of_kind, of_module, scores_of
from studies.systems._train import Progress


@dataclass(frozen=True)
class GraphNetwork(Learning):
    """Settings. Two cores: as they are. One GPU: width 256, 4 layers, 20 seeds.

    The karate club has 18 members to learn from: ``probe=16, batch_size=16``.
    """

    dataset: str = setting("atlas", "atlas (many graphs) or karate (nodes of one)")
    width: int = setting(32, "features of a node inside")
    layers: int = setting(3, "rounds of messages")
    activation: Activation = setting("tanh", "nonlinearity")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "width", "layers")


class Messages(nn.Module):
    """Each round a node hears the sum of its neighbours (Kipf & Welling, 2017; Xu et al., 2019).

    With `pooled`, outputs are sums over nodes.
    """

    width: int
    layers: int
    n_out: int
    pooled: bool
    activation: Activation = "tanh"
    init_weights: Init = "lecun"
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, graph: dict[str, Array]) -> Array:
        """``(..., n_out)`` with `pooled`, else ``(..., n, n_out)``, of nodes ``(..., n, d)``."""
        weights = initialiser(self.init_weights, self.init_scale)
        h, edges = graph["nodes"], graph["edges"]
        # a sum of many grows with the root of their number, and would saturate the nonlinearity
        edges = edges / jnp.maximum(edges.sum(-1, keepdims=True), 1.0) ** 0.5
        for _ in range(self.layers):
            own = nn.Dense(self.width, kernel_init=weights)(h)
            heard = nn.Dense(self.width, use_bias=False, kernel_init=weights)(edges @ h)
            h = ACTIVATIONS[self.activation](own + heard)
        if self.pooled:
            h = (h * graph["mask"][..., None]).sum(-2)
        return nn.Dense(self.n_out, kernel_init=weights)(h)


def problem(config: GraphNetwork) -> Problem:
    """The network and its data."""
    data = of_kind(config.dataset, Graphs, Graph, seed=config.seed)
    n_out, loss, also = scores_of(data)
    module = Messages(
        config.width,
        config.layers,
        n_out,
        isinstance(data, Graphs),
        config.activation,
        config.init,
        config.init_scale,
    )
    if isinstance(data, Graphs):
        init, apply = of_module(module, data.x_train)
        model = nts.as_model(module)
        return Problem("graph", data, init, apply, model, loss, also=also)
    whole = {"nodes": jnp.asarray(data.nodes), "edges": jnp.asarray(data.edges)}

    def apply_nodes(params: Params, node: Inputs) -> Array:
        return jnp.asarray(module.apply({"params": params}, whole))[node]

    return Problem(
        "graph",
        data,
        lambda key: module.init(key, whole)["params"],
        apply_nodes,
        nts.as_model(apply_nodes, name="Messages"),
        loss,
        also=also,
    )


def train(config: GraphNetwork, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds and leave the recorded run at `path`.

    Raises
    ------
    StudyError
        The settings do not fit the data.
    """
    fit(problem(config), config, path, progress=progress)
