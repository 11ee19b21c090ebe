"""The landscape of the network that learns exclusive or, with its kernel."""

from __future__ import annotations

from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ntkstats import landscape, plots


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
        written.append(saved(ax.get_figure(root=True), folder / "tree.svg"))
    with plots.style("neurips", fraction=0.6, aspect=1.0):
        saddle = int(network.saddles.id[2])
        sides = [scape.path(saddle, -1), scape.path(saddle, 1)]
        axes = plots.pathway(sides, fields=["ntk_entropy", "ntk_trace"])
        written.append(saved(axes[0].get_figure(root=True), folder / "pathway.svg"))
    return written


def saved(figure: Figure | None, path: Path) -> Path:
    """Save a figure as SVG, close it, and say where."""
    assert figure is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same landscape gives the same file.
    with mpl.rc_context({"svg.hashsalt": "ntkstats"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
