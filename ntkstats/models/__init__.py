"""Adapters: whatever the user holds becomes a `Model` of two pure functions, and the `Probe`."""

from ntkstats.models._as_model import as_model as as_model
from ntkstats.models._checks import check_model as check_model
from ntkstats.models._filter import layer_names as layer_names
from ntkstats.models._heads import head_of as head_of
from ntkstats.models._host import without_torch as without_torch
from ntkstats.models._model import Model as Model
from ntkstats.models._model import on_probes as on_probes
from ntkstats.models._probe import Probe as Probe

__all__ = [
    "Model",
    "Probe",
    "as_model",
    "check_model",
    "head_of",
    "layer_names",
    "on_probes",
    "without_torch",
]
