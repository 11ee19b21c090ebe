"""What to measure: collectors, bound into one pure program.

A collector is made by a function of this module and handed to a
[`Recorder`][ntkstats.Recorder], or bound by hand with [`bind`][ntkstats.collectors.bind].
"""

from ntkstats.collectors._basic import accuracy as accuracy
from ntkstats.collectors._basic import loss as loss
from ntkstats.collectors._basic import param_distance as param_distance
from ntkstats.collectors._basic import param_norm as param_norm
from ntkstats.collectors._bind import bind as bind
from ntkstats.collectors._collector import Collector as Collector
from ntkstats.collectors._collector import Label as Label
from ntkstats.collectors._collector import Moment as Moment
from ntkstats.collectors._host import init_on_host as init_on_host
from ntkstats.collectors._host import run_on_host as run_on_host
from ntkstats.collectors._loss_geometry import fisher_trace as fisher_trace
from ntkstats.collectors._loss_geometry import gradient_noise_scale as gradient_noise_scale
from ntkstats.collectors._loss_geometry import lnp as lnp
from ntkstats.collectors._loss_geometry import loss_ntk as loss_ntk
from ntkstats.collectors._ntk import covariance_entropy as covariance_entropy
from ntkstats.collectors._ntk import kernel_target_alignment as kernel_target_alignment
from ntkstats.collectors._ntk import kernel_velocity as kernel_velocity
from ntkstats.collectors._ntk import ntk_spectrum as ntk_spectrum
from ntkstats.collectors._ntk import self_entropy as self_entropy
from ntkstats.collectors._quantities import Diagonal as Diagonal
from ntkstats.collectors._quantities import Eigenvalues as Eigenvalues
from ntkstats.collectors._quantities import GradientOverlaps as GradientOverlaps
from ntkstats.collectors._quantities import Kernel as Kernel
from ntkstats.collectors._quantities import LossKernel as LossKernel
from ntkstats.collectors._quantities import MeanGradient as MeanGradient
from ntkstats.collectors._quantities import ModelOutputs as ModelOutputs
from ntkstats.collectors._quantities import OutputGradients as OutputGradients
from ntkstats.collectors._quantities import Quantity as Quantity
from ntkstats.collectors._quantities import Reading as Reading
from ntkstats.collectors._quantities import SampleGradientNorms as SampleGradientNorms
from ntkstats.collectors._quantities import SampleLosses as SampleLosses
from ntkstats.collectors._types import Field as Field
from ntkstats.collectors._types import Program as Program
from ntkstats.collectors._types import Snapshot as Snapshot

__all__ = [
    "Collector",
    "Diagonal",
    "Eigenvalues",
    "Field",
    "GradientOverlaps",
    "Kernel",
    "Label",
    "LossKernel",
    "MeanGradient",
    "ModelOutputs",
    "Moment",
    "OutputGradients",
    "Program",
    "Quantity",
    "Reading",
    "SampleGradientNorms",
    "SampleLosses",
    "Snapshot",
    "accuracy",
    "bind",
    "covariance_entropy",
    "fisher_trace",
    "gradient_noise_scale",
    "init_on_host",
    "kernel_target_alignment",
    "kernel_velocity",
    "lnp",
    "loss",
    "loss_ntk",
    "ntk_spectrum",
    "param_distance",
    "param_norm",
    "run_on_host",
    "self_entropy",
]
