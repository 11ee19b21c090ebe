"""Collective variables: entropy and trace of the NTK through training, in networks of every kind.

After Tovey et al. (2024), *Collective variables of neural networks: empirical time evolution and
scaling laws*: its claims, and what its readers asked. Each question is a grid of trainings and an
answer in numbers with intervals.
"""

from studies._study import Study
from studies.collective_variables._config import Config as Config
from studies.collective_variables._config import tasks
from studies.collective_variables._report import report, report_all
from studies.collective_variables._trial import run

study = Study(
    name="collective_variables",
    summary="When does the entropy of the NTK fall, when does it rise, and what does it tell?",
    config=Config,
    tasks=tasks,
    run=run,
    report=report,
    report_sweep=report_all,
)

__all__ = ["Config", "study"]
