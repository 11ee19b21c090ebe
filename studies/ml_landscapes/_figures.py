"""The landscape of the network that learns exclusive or, with its kernel."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import ntkstats as nts
from ntkstats import landscape, plots
from ntkstats.typing import Array, Params


def xor_problem(hidden: int, l2: float) -> landscape.Problem:
    """The problem of the documentation, with its kernel observed on the four patterns."""

    def network(params: Params, x: Array) -> Array:
        return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    params = {
        "w1": jnp.zeros((2, hidden)),
        "b1": jnp.zeros(hidden),
        "w2": jnp.zeros((hidden, 2)),
        "b2": jnp.zeros(2),
    }
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    data = nts.Probe(x, np.array([0, 1, 1, 0]))
    units = landscape.hidden_units(params, [("w1", 1), ("b1", 0)], [("w2", 0)], odd=True)
    return landscape.problem_from_model(
        nts.as_model(network),
        params,
        data,
        "cross_entropy",
        l2=l2,
        symmetry=landscape.Symmetry((units,)),
        ntk=data,
        name=f"XOR, {hidden} hidden units",
    )


def explore(problem: landscape.Problem, path: Path | None) -> landscape.Landscape:
    """Minima, transition states and pathways, from fixed keys."""
    scape = landscape.Landscape(problem, path)
    scape.find_minima(key=jax.random.key(0), starts=1000)
    follow = landscape.Follow(max_iterations=100)
    scape.find_saddles(key=jax.random.key(1), starts=2048, follow=follow)
    scape.connect()
    return scape


def draw(scape: landscape.Landscape, folder: Path) -> list[Path]:
    """Draw tree and pathway, and save them as SVG."""
    network = scape.network()
    written = []
    with plots.style("neurips", fraction=0.6):
        entropy = network.minima.observed["ntk_entropy"]
        tree = landscape.disconnectivity(network)
        ax = plots.disconnectivity(tree, values=entropy, label="NTK entropy [nat]")
        written.append(_saved(ax.get_figure(root=True), folder / "tree.svg"))
    with plots.style("neurips", fraction=0.6, aspect=1.0):
        saddle = int(network.saddles.id[2])
        sides = [scape.path(saddle, -1), scape.path(saddle, 1)]
        axes = plots.pathway(sides, fields=["ntk_entropy", "ntk_trace"])
        written.append(_saved(axes[0].get_figure(root=True), folder / "pathway.svg"))
    return written


def _saved(figure: Figure | None, path: Path) -> Path:
    assert figure is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same landscape gives the same file.
    with mpl.rc_context({"svg.hashsalt": "ntkstats"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
