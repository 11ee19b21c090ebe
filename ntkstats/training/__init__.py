"""A reference training loop: jitted, run over an ensemble of seeds, with a recorder attached."""

from ntkstats.training._run import run as run
from ntkstats.training._task import SupervisedCarry as SupervisedCarry
from ntkstats.training._task import Task as Task
from ntkstats.training._task import supervised as supervised

__all__ = ["SupervisedCarry", "Task", "run", "supervised"]
