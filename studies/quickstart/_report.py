"""Figure, words, numbers: made from stored runs alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ntkstats import plots
from ntkstats.recording import open_run
from studies._folder import write_whole
from studies._study import Finished, Report
from studies.datasets import DATASETS
from studies.quickstart._answer import CONFIDENCE, change, headline, numbers, sentence
from studies.quickstart._config import Config
from studies.quickstart._train import RUN

_NAME = "quickstart"


def report(config: Config, finished: Sequence[Finished], folder: Path) -> Report:
    """Write figure, text and numbers; the text is also returned."""
    runs = {f.task.label: open_run(f.folder / RUN) for f in finished}
    with plots.style("neurips"):
        figure = draw(runs)
        *images, _ = plots.save(figure, folder / _NAME, runs=runs)
        plt.close(figure)
    text = answer(config, runs)
    data = DATASETS[config.dataset](seed=config.seed)
    found = {
        "study": _NAME,
        "confidence": CONFIDENCE,
        "data": {"name": data.name, "source": data.source, "licence": data.licence},
        "networks": [numbers(label, ds) for label, ds in runs.items()],
    }
    table, page = folder / f"{_NAME}.json", folder / f"{_NAME}.md"
    write_whole(table, json.dumps(found, indent=2) + "\n")
    write_whole(page, _page(text, f"{data.name}: {data.source}. Terms: {data.licence}."))
    return Report(text, (*images, table, page))


def answer(config: Config, runs: Mapping[str, xr.Dataset]) -> str:
    """Give the answer in words: one sentence for all, then one paragraph a network."""
    changes = {label: change(ds.entropy) for label, ds in runs.items()}
    how = (
        f"{config.seeds} seeds, {config.steps} updates of {config.optimizer} with step size "
        f"{config.learning_rate:g} and {config.batch_size} images each; NTK of the logits (summed "
        f"over classes) on {config.probe} training images."
    )
    each = "\n".join(f"- {sentence(label, ds)}" for label, ds in runs.items())
    return f"{headline(changes)}\n\n{each}\n\n{how}"


def draw(runs: Mapping[str, xr.Dataset]) -> Figure:
    """Draw entropy, trace, loss and accuracy over training: a colour a network."""
    axes = plots.dynamics(runs, ("entropy", "trace", "loss", "accuracy"))
    colors = dict(zip(runs, plots.PALETTE, strict=False))
    plots.dynamics(
        runs,
        ("loss_test", "accuracy_test"),
        axes=axes[2:],
        color=colors,
        linestyle="--",
        members="none",
    )
    keys = [
        Line2D([], [], color="0.3", linestyle="-", label="probe (training)"),
        Line2D([], [], color="0.3", linestyle="--", label="test set"),
    ]
    axes[3].legend(handles=keys, loc="lower right", frameon=False)
    figure = axes[0].get_figure()
    assert isinstance(figure, Figure)
    return figure


def _page(text: str, data: str) -> str:
    return (
        "# Does the entropy of the NTK rise or fall?\n\n"
        f"{text}\n\n"
        f"![Entropy, trace, loss and accuracy over training]({_NAME}.png)\n\n"
        "Lines are medians over seeds, bands reach from the 10 % to the 90 % quantile; dashed "
        "lines are the test set.\n\n"
        f"Data: {data}\n"
    )
