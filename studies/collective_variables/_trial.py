"""One training of one system, all its seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies._progress import Progress
from studies.systems import system_named

RUN = "run.sqlite"


@dataclass(frozen=True)
class Trial:
    """Everything that decides the numbers of a training.

    Attributes
    ----------
    system
        Name of the system.
    settings
        ``((name, value), ...)``: where its config departs from the defaults.
    """

    system: str
    settings: tuple[tuple[str, Any], ...]

    @property
    def label(self) -> str:
        """For people: the system and what is set."""
        return ", ".join([self.system, *(f"{name} {value}" for name, value in self.settings)])

    @property
    def config(self) -> Any:
        """Of the system."""
        return system_named(self.system).config(**dict(self.settings))


def run(trial: Trial, folder: Path, progress: Progress) -> None:
    """Leave the recorded run in ``folder / RUN``."""
    with progress.bar(trial.label) as update:
        system_named(trial.system).train(trial.config, folder / RUN, progress=update)
