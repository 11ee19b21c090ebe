"""A study without training, for tests of what surrounds it: spectra of random Gram matrices.

Tasks can be told to raise, to kill their own process, or to take their time. Workers import it.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies._errors import StudyError
from studies._settings import setting
from studies._study import Report, Study


@dataclass(frozen=True)
class Config:
    """Spectra of random Gram matrices."""

    size: int = setting(4, "rows of the matrix")
    wide: int = setting(2, "columns for each row")
    shape: tuple[int, ...] = setting((1,), "without meaning")
    mishap: str = setting("none", "raise@N or die@N: what happens at size N")
    seconds: float = setting(0.0, "how long a task takes")
    seed: int = setting(0, "seed")

    def __post_init__(self):
        if self.size < 2:
            msg = f"size={self.size}; expected at least 2."
            raise StudyError(msg)


@dataclass(frozen=True)
class Matrix:
    """One matrix."""

    label: str
    size: int
    wide: int
    mishap: str
    seconds: float
    seed: int


def tasks(config):
    return (
        Matrix(
            f"Gram {config.size}x{config.wide * config.size}",
            config.size,
            config.wide,
            config.mishap,
            config.seconds,
            config.seed,
        ),
    )


def run(task, folder: Path, progress):
    draw = np.random.default_rng(task.seed).normal(size=(task.size, task.wide * task.size))
    np.save(folder / "eigenvalues.npy", np.linalg.eigvalsh(draw @ draw.T))
    with progress.bar(task.label) as update:
        steps = 20
        for i in range(steps):
            update(i, steps)
            time.sleep(task.seconds / steps)
    if f"raise@{task.size}" in task.mishap.split(","):
        msg = "the matrix is cursed"
        raise RuntimeError(msg)
    if f"die@{task.size}" in task.mishap.split(","):
        os.kill(os.getpid(), signal.SIGKILL)


def report(config, finished, folder):
    return Report("nothing", ())


study = Study("gram", "Spectra of random Gram matrices.", Config, tasks, run, report)
