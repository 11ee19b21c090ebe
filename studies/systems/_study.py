"""Every system as a study of its own: one training, or a sweep over any of its settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ntkstats import plots
from ntkstats.recording import open_run
from studies._progress import Progress
from studies._study import Finished, Report, Study
from studies.systems import SYSTEMS, system_named

RUN = "run.sqlite"


@cache
def study_of(name: str) -> Study:
    """The study of a system: its only task is the config itself.

    Raises
    ------
    StudyError
        There is no system of that name.
    """
    system = system_named(name)
    return Study(
        name=name,
        summary=f"Train one system: {system.summary}.",
        config=system.config,
        tasks=_itself,
        run=partial(_run, name),
        report=partial(_report, name),
    )


def _itself(config: Any) -> tuple[Any, ...]:
    return (config,)


def _run(name: str, task: Any, folder: Path, progress: Progress) -> None:
    with progress.bar(task.label) as update:
        SYSTEMS[name].train(task, folder / RUN, progress=update)


def _report(name: str, config: Any, finished: Sequence[Finished], folder: Path) -> Report:
    """Draw entropy, trace and score over training, and say where they ended."""
    system = SYSTEMS[name]
    (task,) = finished
    ds = open_run(task.folder / RUN)
    fields = [f"{kind}{head}" for head in system.heads for kind in ("entropy", "trace")]
    score, rises = system.score
    with plots.style("neurips"):
        axes = plots.dynamics({config.label: ds}, (*fields, score))
        figure = axes[0].get_figure()
        assert isinstance(figure, Figure)
        *images, _ = plots.save(figure, folder / name, runs={config.label: ds})
        plt.close(figure)
    moved = [f"{field} {_ends(ds[field])}" for field in (*fields, score)]
    better = "larger" if rises else "smaller"
    text = f"{system.summary}: {'; '.join(moved)} (mean over seeds; {score}: {better} is better)."
    return Report(text, tuple(images))


def _ends(values: Any) -> str:
    recorded = values.dropna(
        values.dims[-1] if "member" in values.dims else values.dims[0], how="all"
    )
    mean = recorded.mean("member") if "member" in recorded.dims else recorded
    return f"from {float(mean[0]):.3g} to {float(mean[-1]):.3g}"
