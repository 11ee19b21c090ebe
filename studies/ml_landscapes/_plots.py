"""The study's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ntkstats import landscape, plots
from ntkstats.analysis import mean_interval
from ntkstats.plots import PALETTE
from ntkstats.plots._style import sequential
from studies.ml_landscapes._figures import saved
from studies.ml_landscapes._numbers import TEMPERATURES, excess, passes

if TYPE_CHECKING:
    from studies.ml_landscapes._report import Mapped

_PATHS = 6  # pathways that are drawn


class Drawn(NamedTuple):
    """A figure on disk, with what to say of it."""

    path: Path
    title: str
    caption: str


def draw(mapped: Sequence[Mapped], folder: Path) -> list[Drawn]:
    """Draw all figures for which there are landscapes, and save them as SVG."""
    drawn = []
    for name, make in _FIGURES.items():
        with plots.style("neurips"):
            made = make(mapped)
            if made is None:
                continue
            figure, title, caption = made
            drawn.append(Drawn(saved(figure, folder / f"{name}.svg"), title, caption))
    return drawn


Made = tuple[Figure, str, str] | None


def counts(mapped: Sequence[Mapped]) -> Made:
    """Minima and transition states over weight decay."""
    figure, axes = plt.subplots(1, 2, layout="constrained", sharex=True)
    xor = [it for it in mapped if it.task.data == "xor"]
    hidden = sorted({it.task.hidden for it in xor})
    for color, units in zip(PALETTE, hidden, strict=False):
        rows = sorted((it for it in xor if it.task.hidden == units), key=lambda it: it.task.l2)
        decays = [it.task.l2 for it in rows]
        low, high = [it.numbers.minima for it in rows], [it.numbers.saddles for it in rows]
        axes[0].plot(decays, low, "o-", color=color, label=f"{units}", markersize=3.5)
        axes[0].plot(decays, high, "s--", color=color, mfc="none", markersize=3.5)
    axes[0].set_title("XOR")
    if hidden:
        axes[0].legend(title="hidden units", frameon=False)
    iris = [it for it in mapped if it.task.data == "iris"]
    for name, marker, line, fill in (("minima", "o", "-", "full"), ("saddles", "s", "--", "none")):
        points = []
        for l2 in sorted({it.task.l2 for it in iris}):
            values = [float(getattr(it.numbers, name)) for it in iris if it.task.l2 == l2]
            found = mean_interval(values)
            points.append((l2, found.value, found.value - found.low, found.high - found.value))
        if points:
            x, y, down, up = np.array(points).T
            error = np.nan_to_num(np.array([down, up]))
            axes[1].errorbar(
                x, y, error, color=PALETTE[0], marker=marker, linestyle=line, fillstyle=fill,
                capsize=2, markersize=3.5,
            )  # fmt: skip
    axes[1].set_title("iris")
    keys = [
        Line2D([], [], color="0.3", marker="o", label="minima"),
        Line2D([], [], color="0.3", marker="s", mfc="none", ls="--", label="transition states"),
    ]
    axes[1].legend(handles=keys, frameon=False)
    for ax in axes:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.set_xlabel("Weight decay")
    axes[0].set_ylabel("Number up to symmetry")
    return (
        figure,
        "Numbers of minima and transition states over weight decay",
        "Minima (filled) and transition states (open, dashed) up to permutations and signs of "
        "hidden units. Iris: means over splits with 95 % intervals.",
    )


def heat(mapped: Sequence[Mapped]) -> Made:
    """Heat capacities."""
    by_title: dict[str, list[Mapped]] = {}
    for it in _first(mapped):
        units = "hidden unit" + "s" * (it.task.hidden > 1)
        by_title.setdefault(f"{_name(it.task.data)}, {it.task.hidden} {units}", []).append(it)
    groups = list(by_title.items())
    if not groups:
        return None
    figure, axes = _panels(len(groups))
    for ax, (title, rows) in zip(axes, groups, strict=False):
        for color, it in zip(PALETTE, rows, strict=False):
            curve = 1 + excess(it.scape.network())
            ax.plot(TEMPERATURES, curve, color=color, label=f"{it.task.l2:g}")
        ax.set_title(title)
        ax.set_xscale("log")
        ax.legend(title="weight decay", frameon=False)
    for ax in axes[-2:]:
        ax.set_xlabel("Temperature (units of the loss)")
    for ax in axes[::2]:
        ax.set_ylabel("Heat capacity / (d/2)")
    return (
        figure,
        "Heat capacity over temperature",
        "Harmonic superposition over all minima with their orbit sizes, in units of equipartition. "
        "A peak is where higher minima that are wider or more numerous take over. Iris: split 0.",
    )


def trees(mapped: Sequence[Mapped]) -> Made:
    """Disconnectivity graphs of the richest iris landscapes."""
    rows = [it for it in _first(mapped) if it.task.data == "iris" and it.numbers.minima > 2][-2:]
    if not rows:
        return None
    figure, grid = plt.subplots(len(rows), 2, layout="constrained", squeeze=False)
    _heighten(figure, 0.85 * len(rows))
    for line, it in zip(grid, rows, strict=True):
        network = it.scape.network()
        tree = landscape.disconnectivity(network)
        fields = (("test_accuracy", "Test accuracy"), ("ntk_entropy", "NTK entropy [nat]"))
        for ax, (name, label) in zip(line, fields, strict=True):
            values = network.minima.observed[name]
            plots.disconnectivity(tree, ax=ax, values=values, label=label, numbers=False)
            ax.set_title(f"weight decay {it.task.l2:g}")
    return (
        figure,
        "Disconnectivity graphs of iris landscapes",
        "Each branch is a minimum of the training loss (iris, split 0), coloured by test accuracy "
        "(left) and NTK entropy (right); branches join at the transition states between them.",
    )


def barriers(mapped: Sequence[Mapped]) -> Made:
    """Entropy along low barriers, and its change up to all passes."""
    iris = [it for it in mapped if it.task.data == "iris"]
    if not iris:
        return None
    l2 = min(it.task.l2 for it in iris)
    rows = [it for it in iris if it.task.l2 == l2]
    figure, axes = plt.subplots(1, 2, layout="constrained")
    first = passes(rows[0].scape)
    lowest = np.argsort(first.barrier)[:_PATHS]
    shades = sequential()(np.linspace(0.15, 0.85, len(lowest)))
    for shade, j in zip(shades, lowest, strict=True):
        for side in (-1, 1):
            stored = rows[0].scape.path(int(first.id[j]), side)
            if stored is None:
                continue
            arc = side * stored.path.arc / stored.path.arc[-1]
            label = f"{first.barrier[j]:.1e}" if side == 1 else None
            axes[0].plot(arc, stored.observed["ntk_entropy"], color=shade, label=label)
    axes[0].set_xlabel("Arc length (minimum, pass, minimum)")
    axes[0].set_ylabel("NTK entropy [nat]")
    axes[0].legend(title="barrier", frameon=False, fontsize="x-small")
    for color, it in zip(PALETTE, rows, strict=False):
        found = passes(it.scape)
        axes[1].plot(found.barrier, found.change, "o", ms=2, color=color, label=f"{it.task.seed}")
    axes[1].axhline(0, color="0.6", linewidth=0.6)
    axes[1].set_xscale("log")
    axes[1].set_xlabel("Barrier above the higher minimum")
    axes[1].set_ylabel("Entropy at pass less at minima [nat]")
    axes[1].legend(title="split", frameon=False, fontsize="x-small", ncols=2)
    return (
        figure,
        "NTK entropy along and across barriers",
        f"Iris at weight decay {l2:g}. Left: along the gradient flow down both sides of the "
        "lowest passes of split 0. Right: at every transition state, less the mean of its two "
        "minima.",
    )


_FIGURES: dict[str, Callable[[Sequence[Mapped]], Made]] = {
    "counts": counts,
    "trees": trees,
    "heat": heat,
    "barriers": barriers,
}


def _first(mapped: Iterable[Mapped]) -> Iterator[Mapped]:
    return (it for it in mapped if it.task.seed == 0)


def _name(data: str) -> str:
    return "XOR" if data == "xor" else data


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    lines = (n + 1) // 2
    figure, grid = plt.subplots(lines, 2, layout="constrained", squeeze=False)
    _heighten(figure, 0.85 * lines)
    axes = list(grid.ravel())
    for spare in axes[n:]:
        spare.set_visible(False)
    return figure, axes


def _heighten(figure: Figure, factor: float) -> None:
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * max(factor, 1.0))
