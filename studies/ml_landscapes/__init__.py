"""Landscapes of small networks: how many minima, what lies between them, and their kernels.

``python -m studies.ml_landscapes`` draws the figures of the documentation's first page on
landscapes; ``python -m studies run ml_landscapes`` is the study.
"""

from studies._study import Study
from studies.ml_landscapes._config import Config as Config
from studies.ml_landscapes._config import tasks
from studies.ml_landscapes._explore import run
from studies.ml_landscapes._report import report

study = Study(
    name="ml_landscapes",
    summary="How many minima do small networks have, and how does the NTK change between them?",
    config=Config,
    tasks=tasks,
    run=run,
    report=report,
)

__all__ = ["Config", "study"]
