"""ntkstats: a microscope for neural-network training.

Collectors compute spectra of the empirical neural tangent kernel (entropy, trace and companions)
of any JAX model while it trains; records go to a store that is read as xarray and plotted.
"""

from ntkstats import _compat

_compat.check_version()

from ntkstats import analysis as analysis  # noqa: E402
from ntkstats import attach as attach  # noqa: E402
from ntkstats import checkpoints as checkpoints  # noqa: E402
from ntkstats import collectors as collectors  # noqa: E402
from ntkstats import errors as errors  # noqa: E402
from ntkstats import kernels as kernels  # noqa: E402
from ntkstats import landscape as landscape  # noqa: E402
from ntkstats import models as models  # noqa: E402
from ntkstats import plots as plots  # noqa: E402
from ntkstats import recording as recording  # noqa: E402
from ntkstats import selection as selection  # noqa: E402
from ntkstats import spectrum as spectrum  # noqa: E402
from ntkstats import training as training  # noqa: E402
from ntkstats.attach import as_optax as as_optax  # noqa: E402
from ntkstats.attach import record_calls as record_calls  # noqa: E402
from ntkstats.attach import watch as watch  # noqa: E402
from ntkstats.checkpoints import scan_checkpoints as scan_checkpoints  # noqa: E402
from ntkstats.kernels import empirical_ntk as empirical_ntk  # noqa: E402
from ntkstats.kernels import ntk_diagonal as ntk_diagonal  # noqa: E402
from ntkstats.kernels import ntk_operator as ntk_operator  # noqa: E402
from ntkstats.kernels import ntk_trace as ntk_trace  # noqa: E402
from ntkstats.models import Model as Model  # noqa: E402
from ntkstats.models import Probe as Probe  # noqa: E402
from ntkstats.models import as_model as as_model  # noqa: E402
from ntkstats.recording import RecordAt as RecordAt  # noqa: E402
from ntkstats.recording import Recorder as Recorder  # noqa: E402
from ntkstats.recording import list_runs as list_runs  # noqa: E402
from ntkstats.recording import open_run as open_run  # noqa: E402
from ntkstats.recording import open_runs as open_runs  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "Model",
    "Probe",
    "RecordAt",
    "Recorder",
    "analysis",
    "as_model",
    "as_optax",
    "attach",
    "checkpoints",
    "collectors",
    "empirical_ntk",
    "errors",
    "kernels",
    "landscape",
    "list_runs",
    "models",
    "ntk_diagonal",
    "ntk_operator",
    "ntk_trace",
    "open_run",
    "open_runs",
    "plots",
    "record_calls",
    "recording",
    "scan_checkpoints",
    "selection",
    "spectrum",
    "training",
    "watch",
]
