"""Quickstart: the entropy of the NTK in training, rising or falling, for three networks.

Three networks learn handwritten digits, each from several seeds at once, while their NTK on a
fixed probe is recorded.
"""

from studies._study import Study
from studies.quickstart._config import Config as Config
from studies.quickstart._config import tasks
from studies.quickstart._report import report
from studies.quickstart._train import run

study = Study(
    name="quickstart",
    summary="Does the entropy of the NTK rise or fall while MLPs and a CNN learn digits?",
    config=Config,
    tasks=tasks,
    run=run,
    report=report,
)

__all__ = ["Config", "study"]
