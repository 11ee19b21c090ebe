"""Figures of the study, drawn from its answers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ntkstats.plots import PALETTE
from studies.data_selection._answers import LOSS, Row
from studies.sweeps._figures import _panels, shades
from studies.sweeps._report import Drawn

_BARS = "Bars are 95 % intervals over splits of the data."
_FIELDS = (
    ("effective_entropy", "entropy"),
    ("trace", "trace"),
    ("log_determinant", "log-determinant"),
    ("posterior_variance", "posterior variance"),
)
_CURVES = ("RND", "RNDLimit", "MaxNorm", "LCMD", "FacilityLocation", "MeanVariance")
_TICKS = (0.25, 0.5, 1, 2, 4, 8)
_METHODS = (
    ("random", "random", "0.4"),
    ("strides", "strides through clusters", PALETTE[2]),
    ("RND", "RND", PALETTE[0]),
    ("MaxDet", "MaxDet", PALETTE[1]),
)


def figures(found: Mapping[str, Any]) -> Iterator[Callable[[], Drawn]]:
    """What draws each figure that there are answers for."""
    if found.get("league"):
        yield partial(_league, found)
        yield partial(_curves, found["league"])
        yield partial(_sets, found["league"])
    if found.get("starts"):
        yield partial(_starts, found["starts"])
    if found.get("ablations"):
        yield partial(_ablations, found["ablations"])
    if found.get("atoms"):
        yield partial(_atoms, found["atoms"])


def _league(found: Mapping[str, Any]) -> Drawn:
    """A row a selector, best first, a panel a case, a colour a size."""
    league, order = found["league"], [row["selector"] for row in found["overview"]]
    labels = {row["selector"]: row["labels"] for row in found["overview"]}
    width = float(mpl.rcParams["figure.figsize"][0])
    columns = min(3, len(league))
    lines = -(-len(league) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(width, lines * (0.13 * len(order) + 0.55) + 0.4), squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    axes = list(grid.ravel())
    for spare in axes[len(league) :]:
        figure.delaxes(spare)
    for ax, (case, table) in zip(axes, league.items(), strict=False):
        sizes = [row["k"] for row in table["random"]]
        for number, (k, color) in enumerate(zip(sizes, shades(len(sizes)), strict=True)):
            shift = 0.22 * (number - (len(sizes) - 1) / 2)
            for row in (r for r in table["rows"] if r["k"] == k):
                ratio = [None if end is None else 1 + end / 100 for end in row[LOSS]]
                _bar(ax, order.index(row["selector"]) + shift, ratio, color)
        ax.axvline(1, color="0.6", lw=0.6, zorder=0)
        _legend_of_sizes(ax, sizes)
        ax.set_title(case.replace("_", " "))
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(mpl.ticker.FixedLocator(_TICKS))
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        ax.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        ax.grid(axis="y", color="0.92", lw=0.5)
        ax.set_axisbelow(True)
    names = [f"{name}*" if labels[name] else name for name in order]
    for line in range(lines):
        grid[line, 0].set_yticks(range(len(order)), names)
    for ax in axes[max(0, len(league) - columns) : len(league)]:
        ax.set_xlabel("relative test loss")
        ax.tick_params(labelbottom=True)
    caption = (
        "Test loss of sets of one size over that of random sets, where the validation loss is "
        f"smallest; left of the line is better. {_BARS} * looks at labels. "
        "The order is by the number of places with an interval on either side."
    )
    return Drawn("league", "League of all selectors", caption, figure)


def _curves(league: Mapping[str, Any]) -> Drawn:
    """Test loss against size: random sets with the spread between sets, and some selectors."""
    figure, axes = _panels(len(league), aspect=0.9)
    for ax, (case, table) in zip(axes, league.items(), strict=True):
        k = np.array([row["k"] for row in table["random"]])
        mean = np.array([row[LOSS][0] for row in table["random"]])
        spread = np.array([row[f"{LOSS}_spread"] for row in table["random"]])
        ax.fill_between(k, mean - spread, mean + spread, color="0.85", lw=0)
        ax.plot(k, mean, color="0.4", marker="o", ms=2.5, label="random")
        for name, color in zip(_CURVES, PALETTE, strict=False):
            rows = {row["k"]: row[LOSS][0] for row in table["rows"] if row["selector"] == name}
            values = mean * (1 + np.array([rows[int(one)] for one in k]) / 100)
            ax.plot(k, values, color=color, marker="o", ms=2.5, lw=1, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(k, [str(one) for one in k])
        ax.yaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
        ax.yaxis.set_minor_formatter(mpl.ticker.ScalarFormatter())
        ax.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 3, 5)))
        ax.minorticks_off() if mean.max() / mean.min() > 20 else None
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        ax.set_title(case.replace("_", " "))
        ax.set_xlabel("samples picked")
    _left(axes, "test loss")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    caption = (
        "Mean test loss where the validation loss is smallest. The band is one standard deviation "
        "between random sets of one split."
    )
    return Drawn("curves", "Learning curves", caption, figure)


def _sets(league: Mapping[str, Any]) -> Drawn:
    """Entropy, trace and loss of RND's sets against random ones."""
    fields = (("effective_entropy", "entropy"), ("trace", "trace"), (LOSS, "test loss"))
    figure, axes = _panels(3, aspect=0.95, share=True)
    names = list(league)
    for ax, (field, words) in zip(axes, fields, strict=True):
        for place, case in enumerate(names):
            rows = [r for r in league[case]["rows"] if r["selector"] == "RND"]
            for number, (row, color) in enumerate(zip(rows, shades(len(rows)), strict=True)):
                _bar(ax, place + 0.18 * (number - (len(rows) - 1) / 2), row[field], color)
        _zero(ax)
        ax.set_xlabel(f"{words} against random (%)")
    axes[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    most = max((len(t["random"]) for t in league.values()), default=1)
    handles = [
        Line2D([], [], ls="", marker="o", ms=3, color=c, label=word)
        for c, word in zip(
            (shades(most)[0], shades(most)[-1]), ("smallest sets", "largest sets"), strict=True
        )
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    caption = f"Sets that RND picks against random sets of one size, by size. {_BARS}"
    return Drawn("sets", "Entropy, trace and loss of RND's sets", caption, figure)


def _starts(starts: Mapping[str, Sequence[Row]]) -> Drawn:
    figure, axes = _panels(len(starts), aspect=0.8, share=True)
    for ax, (case, rows) in zip(axes, starts.items(), strict=True):
        for number, ((field, words), color) in enumerate(zip(_FIELDS, PALETTE, strict=False)):
            for place, row in enumerate(rows):
                value, low, high = row[LOSS][field]
                at = place + 0.16 * (number - 1.5)
                ax.plot([at, at], [low, high], color=color, lw=1)
                label = words if place == 0 else None
                ax.plot(at, value, "o", ms=3, color=color, label=label)
        ax.axhline(0, color="0.6", lw=0.6, zorder=0)
        ax.set_xticks(range(len(rows)), [str(row["k"]) for row in rows])
        ax.set_xlim(-0.5, len(rows) - 0.5)
        ax.set_title(case.replace("_", " "))
        ax.set_xlabel("samples of a set")
    _left(axes, "rank correlation\nwith test loss")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    caption = (
        "Spearman's correlation of a number at initialisation with the test loss over random sets "
        "of one size, within splits. Bars are 95 % bootstrap intervals over sets."
    )
    return Drawn("starts", "Starting values and the test loss", caption, figure)


def _ablations(tables: Mapping[str, Sequence[Row]]) -> Drawn:
    """A row a variant: test loss, picks in common with another seed, and with the limit."""
    first = next(iter(tables.values()))
    order = list(dict.fromkeys((row["group"], row["value"]) for row in first))
    width = float(mpl.rcParams["figure.figsize"][0])
    columns = (
        (LOSS, "test loss against random (%)"),
        ("again", "picks in common,\ntwo seeds"),
        ("limit", "picks in common\nwith the limit"),
    )
    figure, grid = plt.subplots(
        len(tables), 3, figsize=(width, len(tables) * (0.13 * len(order) + 0.5) + 0.35),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, (dataset, rows) in zip(list(grid), tables.items(), strict=True):
        last = dataset == list(tables)[-1]
        sizes = sorted({row["k"] for row in rows})
        for ax, (field, words) in zip(line, columns, strict=True):
            for number, (k, color) in enumerate(zip(sizes, shades(len(sizes)), strict=True)):
                for row in (r for r in rows if r["k"] == k):
                    at = order.index((row["group"], row["value"]))
                    shift = 0.2 * (number - (len(sizes) - 1) / 2)
                    if field == LOSS or row["group"] != "norm" or row["value"].startswith("RND,"):
                        _bar(ax, at + shift, row[field], color)
            if field == LOSS:
                _zero(ax)
                ax.set_title(dataset.replace("_", " "), loc="left")
                _legend_of_sizes(ax, sizes)
            else:
                ax.set_xlim(0, 1.04)
            if last:
                ax.set_xlabel(words)
            ax.grid(axis="y", color="0.92", lw=0.5)
            ax.set_axisbelow(True)
        line[0].set_yticks(range(len(order)), [_variant(*one) for one in order])
        line[0].set_ylim(len(order) - 0.4, -0.6)
    caption = (
        f"RND with one thing changed, dense networks. {_BARS} Picks in common are shares (by "
        "chance, that of the pool that is picked); the limit is RNDLimit for one hidden layer of "
        "infinite width. Width: one hidden layer in the NTK parametrisation, gradient descent."
    )
    return Drawn("ablations", "What matters in random network distillation", caption, figure)


def _variant(group: str, value: str) -> str:
    if group == "RND":
        return "RND"
    plain = {"norm": value, "start": "restarted", "preset": f"settings of {value}"}
    return plain.get(group, f"{group} {value}")


def _atoms(found: Mapping[str, Any]) -> Drawn:
    parts = (("test", "all held out"), ("minority", "small clusters"), ("majority", "the others"))
    figure, axes = _panels(3, aspect=0.95)
    size = np.array([row["size"] for row in found["rounds"]])
    for ax, (part, title) in zip(axes, parts, strict=True):
        for number, (name, words, color) in enumerate(_METHODS):
            ends = np.array([row[f"{part}/{name}"] for row in found["rounds"]])
            x = size * 1.02 ** (number - 1.5)
            ax.errorbar(
                x, ends[:, 0], [ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 0]], color=color,
                marker="o", ms=2.5, lw=1, elinewidth=0.8, label=words,
            )  # fmt: skip
        if part == "test":
            values = [row["neighbours"][0] for row in found["rounds"]]
            ax.plot(size, values, color=PALETTE[2], ls="--", lw=1, label="strides, on neighbours")
            ax.axhline(found["tolerance"], color="0.6", lw=0.6, ls=":", label="tolerance")
        ax.set_xscale("log")
        ax.set_xticks(size, [f"{one:.0f}" for one in size])
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        ax.set_title(title)
        ax.set_xlabel("training environments")
    axes[0].set_ylabel("error / deviations of the target")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    caption = (
        "Root mean square error of a Gaussian process on held-out environments, after learning "
        "from sets of the sizes that the tolerance loop goes through. Bars are 95 % intervals over "
        "splits."
    )
    return Drawn("atoms", "Atomic environments in a tolerance loop", caption, figure)


def _bar(ax: Axes, at: float, ends: Sequence[float | None], color: Any) -> None:
    value, low, high = (np.nan if end is None else float(end) for end in ends)
    if np.isfinite(value):
        ax.plot([low, high], [at, at], color=color, lw=0.9, solid_capstyle="butt")
        ax.plot([value], [at], "o", color=color, ms=2.2)


def _zero(ax: Axes) -> None:
    ax.axvline(0, color="0.6", lw=0.6, zorder=0)


def _legend_of_sizes(ax: Axes, sizes: Sequence[int]) -> None:
    handles = [
        Line2D([], [], ls="", marker="o", ms=2.5, color=c, label=f"{k}")
        for k, c in zip(sizes, shades(len(sizes)), strict=True)
    ]
    ax.legend(
        handles=handles, loc="upper right", handletextpad=0, borderpad=0.2, labelspacing=0.15,
        fontsize="x-small", frameon=True, framealpha=0.9, edgecolor="none",
    )  # fmt: skip


def _left(axes: Sequence[Axes], words: str) -> None:
    for ax in axes:
        spec = ax.get_subplotspec()
        if spec is not None and spec.is_first_col():
            ax.set_ylabel(words)
