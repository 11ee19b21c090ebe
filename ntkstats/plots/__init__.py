"""Figures from stored runs: Axes in, Axes out; models are never read."""

from ._disconnectivity import disconnectivity as disconnectivity
from ._disconnectivity import pathway as pathway
from ._dynamics import dynamics as dynamics
from ._layers import layer_shares as layer_shares
from ._save import save as save
from ._spectra import eigenvalue_paths as eigenvalue_paths
from ._spectra import spectra as spectra
from ._style import PALETTE as PALETTE
from ._style import style as style
from ._venues import figure_size as figure_size

__all__ = [
    "PALETTE",
    "disconnectivity",
    "dynamics",
    "eigenvalue_paths",
    "figure_size",
    "layer_shares",
    "pathway",
    "save",
    "spectra",
    "style",
]
