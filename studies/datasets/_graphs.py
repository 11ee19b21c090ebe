"""Real graphs from networkx: every graph with up to seven nodes, and one karate club."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from studies.datasets._kinds import Graph, Graphs
from studies.datasets._packages import imported
from studies.datasets._split import scale_of, stratified_split

_NETWORKX = "networkx: BSD-3"
_LARGEST = 7


def atlas(*, seed: int = 0, test_fraction: float = 0.2) -> Graphs:
    r"""All 995 connected graphs with two to seven nodes, with their energy, from networkx.

    The energy of a graph is $\sum_i |\lambda_i|$ over the eigenvalues of its adjacency matrix; for
    the carbon skeleton of a conjugated hydrocarbon it is Hückel's total energy of the $\pi$
    electrons. It is computed here, so the targets are exact. Nodes know their degree (over 6) only.

    Parameters
    ----------
    seed
        Decides the split and the order.
    test_fraction
        Share of the graphs of each size that is held out, in (0, 1).

    Raises
    ------
    DependencyError
        networkx is not installed.
    StudyError
        The share leaves a size without training or test graphs.

    References
    ----------
    Read & Wilson (1998), *An Atlas of Graphs*; Gutman (1978), *The energy of a graph*.
    """
    edges, sizes, energy = _read_atlas()
    # Of the smallest sizes there are too few to hold any out: two to four nodes count as one.
    train, test = stratified_split(np.maximum(sizes, 4), test_fraction, seed=seed)
    scale = scale_of(energy[train, None])
    mask = (np.arange(_LARGEST) < sizes[:, None]).astype(np.float32)
    nodes = np.stack([mask, edges.sum(-1) / (_LARGEST - 1)], axis=-1).astype(np.float32)
    whole = {"nodes": nodes, "edges": edges, "mask": mask}
    return Graphs(
        {name: part[train] for name, part in whole.items()},
        scale(energy[train, None]),
        {name: part[test] for name, part in whole.items()},
        scale(energy[test, None]),
        float(scale.mean[0]),
        float(scale.std[0]),
        "graph energy",
        "graph atlas",
        "networkx.graph_atlas_g: all graphs with up to seven nodes (Read & Wilson, 1998)",
        f"an enumeration, free; {_NETWORKX}",
    )


def karate(*, seed: int = 0, test_fraction: float = 0.5) -> Graph:
    """34 members of a karate club, their 78 friendships, and the two clubs it broke into.

    Nodes know nothing but who they are (one feature each).

    Parameters
    ----------
    seed
        Decides which members are labelled.
    test_fraction
        Share of each of the two clubs that is held out, in (0, 1).

    Raises
    ------
    DependencyError
        networkx is not installed.
    StudyError
        The share leaves a club without training or test members.

    References
    ----------
    Zachary (1977), *An information flow model for conflict and fission in small groups*.
    """
    networkx = imported("networkx", "networkx")
    graph = networkx.karate_club_graph()
    edges = networkx.to_numpy_array(graph, weight=None, dtype=np.float32)
    clubs = [graph.nodes[n]["club"] for n in graph.nodes]
    y = np.array([club == "Officer" for club in clubs]).astype(np.int32)
    train, test = (part.astype(np.int32) for part in stratified_split(y, test_fraction, seed=seed))
    return Graph(
        train,
        y[train],
        test,
        y[test],
        np.eye(len(y), dtype=np.float32),
        edges,
        "karate club",
        "networkx.karate_club_graph (Zachary, 1977)",
        f"published observations, no licence stated; {_NETWORKX}",
    )


@lru_cache(maxsize=1)
def _read_atlas() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adjacency ``(995, 7, 7)``, number of nodes ``(995,)``, energy ``(995,)``."""
    networkx = imported("networkx", "networkx")
    graphs = [
        graph
        for graph in networkx.graph_atlas_g()
        if len(graph) > 1 and networkx.is_connected(graph)
    ]
    sizes = np.array([len(graph) for graph in graphs])
    edges = np.zeros((len(graphs), _LARGEST, _LARGEST), np.float32)
    for matrix, graph in zip(edges, graphs, strict=True):
        matrix[: len(graph), : len(graph)] = networkx.to_numpy_array(graph)
    # The nodes that only fill up have eigenvalue 0 and add nothing.
    energy = np.abs(np.linalg.eigvalsh(edges.astype(np.float64))).sum(-1)
    return edges, sizes, energy
