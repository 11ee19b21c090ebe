"""Disconnectivity graphs, and what is recorded along pathways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from ntkstats.errors import PlotError
from ntkstats.landscape import StoredPath, Tree

from ._axes import label_once
from ._style import PALETTE, sequential

_FEW = 12  # minima whose numbers fit under their branches


def disconnectivity(
    tree: Tree,
    *,
    ax: Axes | None = None,
    values: np.ndarray | None = None,
    label: str = "",
    levels: int | None = None,
    numbers: bool | None = None,
) -> Axes:
    """Draw a disconnectivity graph: minima at the ends of branches, joined where paths open.

    Parameters
    ----------
    tree
        From [`landscape.disconnectivity`][ntkstats.landscape.disconnectivity].
    ax
        Panel to draw into; made when omitted.
    values
        One number a minimum [n], shown as the colour of its branch.
    label
        What they are.
    levels
        Draw branches joined at this many evenly spaced levels, as is customary for large networks;
        exactly where they join by default.
    numbers
        Write the numbers of minima under their branches; by default if there are at most 12.

    Raises
    ------
    PlotError
        The tree is empty, or there is not one value for each minimum.
    """
    n = len(tree.orbit)
    if n == 0:
        msg = "The tree has no minimum; build it from a network with minima."
        raise PlotError(msg)
    if values is not None and np.shape(values) != (n,):
        msg = f"values has shape {np.shape(values)}; expected ({n},), one a minimum."
        raise PlotError(msg)
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    level, top = _heights(tree, levels)
    slant = 0.05 * (top - float(tree.level.min())) if top > tree.level.min() else 1.0
    lines = [_branch(tree, node, level, top, slant) for node in range(len(level))]
    if values is None:
        ax.add_collection(LineCollection(lines, colors=PALETTE[0], linewidths=0.9))
    else:
        finite = np.asarray(values, float)[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        norm = Normalize(low, high if high > low else low + 1)
        colors = [sequential()(norm(v)) if np.isfinite(v) else PALETTE[-1] for v in values]
        # Branches above a joint belong to several minima and stay neutral.
        colors += [PALETTE[-1]] * (len(level) - n)
        ax.add_collection(LineCollection(lines, colors=colors, linewidths=1.1))
        _bar(ax, norm, label)
    if numbers is None:
        numbers = n <= _FEW
    if numbers:
        for i in range(n):
            ax.annotate(
                str(i), (tree.position[i], tree.level[i]), xytext=(0, -3),
                textcoords="offset points", ha="center", va="top", fontsize="small",
            )  # fmt: skip
    ax.set_xlim(0, float(tree.leaves[tree.parent < 0].sum()))
    span = top - float(tree.level.min())
    ax.set_ylim(float(tree.level.min()) - (0.1 if numbers else 0.04) * (span or 1), top)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
    label_once(ax, None, "Loss")
    return ax


def _heights(tree: Tree, levels: int | None) -> tuple[np.ndarray, float]:
    """Where nodes are drawn, and the upper edge."""
    level = np.array(tree.level)
    low, high = float(level.min()), float(level.max())
    top = high + 0.06 * ((high - low) or 1.0)
    if levels is not None:
        if not isinstance(levels, int) or levels < 2:
            msg = f"levels={levels!r}; expected a whole number of at least 2, or None."
            raise PlotError(msg)
        ladder = np.linspace(low, top, levels)
        inner = np.arange(len(level)) >= len(tree.orbit)
        level[inner] = ladder[np.searchsorted(ladder, level[inner] - 1e-12 * abs(high))]
    return level, top


def _branch(tree: Tree, node: int, level: np.ndarray, top: float, slant: float) -> np.ndarray:
    """From a node straight up to just below its parent, then slanting into it."""
    parent = int(tree.parent[node])
    x = tree.position[node]
    if parent < 0:
        return np.array([[x, level[node]], [x, top]])
    knee = max(float(level[parent]) - slant, float(level[node]))
    return np.array([[x, level[node]], [x, knee], [tree.position[parent], level[parent]]])


def _bar(ax: Axes, norm: Normalize, label: str) -> None:
    figure = ax.get_figure(root=True)
    if figure is None:
        return
    bar = figure.colorbar(
        ScalarMappable(norm, sequential()), ax=ax, label=label, aspect=25, pad=0.02
    )
    bar.outline.set_visible(False)


def pathway(
    sides: Sequence[StoredPath | None],
    *,
    axes: Sequence[Axes] | None = None,
    fields: Sequence[str] = (),
) -> list[Axes]:
    """Draw the loss, and what else was recorded, along a pathway from minimum to minimum.

    Parameters
    ----------
    sides
        The two sides of a transition state: ``[scape.path(id, -1), scape.path(id, 1)]``.
    axes
        Panels, one for the loss and one for each field; made when omitted.
    fields
        Names of observed numbers (``"ntk_entropy"``, ``"ntk_trace"``), or ``"gradient"`` or
        ``"lowest"``.

    Raises
    ------
    PlotError
        A side is missing, or a field was not recorded along it.
    """
    if len(sides) != 2 or any(side is None for side in sides):
        msg = "sides must hold both sides of a transition state; call Landscape.connect first."
        raise PlotError(msg)
    left, right = (side for side in sides if side is not None)
    rows = ["energy", *fields]
    if axes is None:
        _, grid = plt.subplots(len(rows), 1, sharex=True, squeeze=False, layout="constrained")
        axes = list(grid[:, 0])
    if len(axes) != len(rows):
        msg = (
            f"{len(axes)} panels for {len(rows)} quantities ({', '.join(rows)}); expected as many."
        )
        raise PlotError(msg)
    arc = np.concatenate([-left.path.arc[::-1], right.path.arc])
    for ax, name in zip(axes, rows, strict=True):
        values = np.concatenate([_along(left, name)[::-1], _along(right, name)])
        ax.plot(arc, values, color=PALETTE[0])
        ax.axvline(0.0, color=PALETTE[-1], linewidth=0.6, linestyle=":")
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        label_once(ax, None, _NAMES.get(name, name))
    label_once(axes[-1], "Length along the pathway", None)
    return list(axes)


_NAMES = {
    "energy": "Loss",
    "gradient": "Norm of the gradient",
    "lowest": "Lowest curvature",
    "ntk_entropy": "NTK entropy [nat]",
    "ntk_trace": "NTK trace",
}


def _along(side: StoredPath, name: str) -> Any:
    if name in ("energy", "gradient", "lowest"):
        return getattr(side.path, name)
    if name not in side.observed:
        there = ", ".join(["gradient", "lowest", *side.observed])
        msg = f"{name!r} was not recorded along this pathway; choose from {there}."
        raise PlotError(msg)
    return side.observed[name]
