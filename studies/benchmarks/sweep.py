"""How long the sweep over sizes takes that the study of collective variables starts with."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from studies._times import Spent, spent
from studies.benchmarks._rows import Cell, Row
from studies.collective_variables import Config, study
from studies.sweeps import run_sweep, sweep

QUESTION = (
    "Dense networks on MNIST-5k, widths 4, 16, 64, 256 x depths 1, 3, 6 x 10 seeds, 30 epochs in "
    "batches of 128, entropy and trace of the trace kernel of 256 samples at 30 log-spaced steps: "
    "the whole sweep, one task after another."
)
COLUMNS = ("sweep", "bar")
BAR_SECONDS = 30 * 60.0


def run() -> list[Row]:
    """Run the sweep in an empty folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "sweep"
        start = time.perf_counter()
        run_sweep(sweep(study, {"question": ("size",)}, base=Config()), folder)
        seconds = time.perf_counter() - start
        whole = spent(folder.glob("tasks/*"))
    if whole is None:
        msg = "no task of the sweep was finished"
        raise RuntimeError(msg)
    return [row(seconds, whole)]


def row(seconds: float, whole: Spent) -> Row:
    """Its time against the bar, and where it went."""
    more = {
        "compiling": Cell(whole.compiling / whole.seconds),
        "recording": Cell(whole.recording / whole.seconds),
        "one task": Cell(whole.seconds / whole.tasks, "s"),
    }
    case = f"{whole.tasks} trainings of 10 seeds"
    return Row(case, seconds, BAR_SECONDS, seconds / BAR_SECONDS, 1.0, more=more)
