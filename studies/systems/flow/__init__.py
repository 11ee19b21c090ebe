"""Normalizing flows in two dimensions, trained by reverse KL on targets with exact normalisation.

Two kernels (see `NTK of a flow` in the documentation): ``log_density``, of log q(x) at a fixed set
of points drawn from the target, and ``map``, of the sample f(z) at fixed noise z. The first is the
Stein kernel of the second: what moves samples without changing q is in the second alone.
"""

from studies.systems.flow._network import Flow as Flow
from studies.systems.flow._targets import TARGETS as TARGETS
from studies.systems.flow._targets import Target as Target
from studies.systems.flow._targets import draw as draw
from studies.systems.flow._train import NormalizingFlow as NormalizingFlow
from studies.systems.flow._train import recorded as recorded
from studies.systems.flow._train import task as task
from studies.systems.flow._train import train as train

__all__ = [
    "TARGETS",
    "Flow",
    "NormalizingFlow",
    "Target",
    "draw",
    "recorded",
    "task",
    "train",
]
