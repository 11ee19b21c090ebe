"""The empirical neural tangent kernel: Gram matrices, diagonals, operators."""

from ntkstats._compat import import_neural_tangents as import_neural_tangents
from ntkstats.kernels._diagonal import ntk_diagonal as ntk_diagonal
from ntkstats.kernels._diagonal import ntk_trace as ntk_trace
from ntkstats.kernels._dual import DualMatrix as DualMatrix
from ntkstats.kernels._dual import ntk_dual as ntk_dual
from ntkstats.kernels._gram import empirical_ntk as empirical_ntk
from ntkstats.kernels._infinite import infinite_ntk as infinite_ntk
from ntkstats.kernels._joint import JointKernel as JointKernel
from ntkstats.kernels._joint import joint_ntk as joint_ntk
from ntkstats.kernels._operator import NTKOperator as NTKOperator
from ntkstats.kernels._operator import ntk_operator as ntk_operator
from ntkstats.kernels._plan import plan as plan
from ntkstats.kernels._prepared import KernelPlan as KernelPlan
from ntkstats.kernels._types import KernelMatrix as KernelMatrix

__all__ = [
    "DualMatrix",
    "JointKernel",
    "KernelMatrix",
    "KernelPlan",
    "NTKOperator",
    "empirical_ntk",
    "import_neural_tangents",
    "infinite_ntk",
    "joint_ntk",
    "ntk_diagonal",
    "ntk_dual",
    "ntk_operator",
    "ntk_trace",
    "plan",
]
