"""Numbers from a kernel: eigenvalues, entropies, ranks, alignment, error bars."""

from ntkstats.spectrum._alignment import center_kernel as center_kernel
from ntkstats.spectrum._alignment import cka as cka
from ntkstats.spectrum._alignment import kernel_target_alignment as kernel_target_alignment
from ntkstats.spectrum._alignment import kernel_velocity as kernel_velocity
from ntkstats.spectrum._conventions import CONVENTIONS as CONVENTIONS
from ntkstats.spectrum._conventions import Convention as Convention
from ntkstats.spectrum._conventions import as_convention as as_convention
from ntkstats.spectrum._eigenvalues import eigenvalues as eigenvalues
from ntkstats.spectrum._entropy import effective_entropy as effective_entropy
from ntkstats.spectrum._entropy import effective_rank as effective_rank
from ntkstats.spectrum._entropy import entropy as entropy
from ntkstats.spectrum._entropy import negative_mass as negative_mass
from ntkstats.spectrum._entropy import spectral_distribution as spectral_distribution
from ntkstats.spectrum._entropy import von_neumann_entropy as von_neumann_entropy
from ntkstats.spectrum._entropy_estimate import entropy_estimate as entropy_estimate
from ntkstats.spectrum._errorbars import exact as exact
from ntkstats.spectrum._errorbars import jackknife_draws as jackknife_draws
from ntkstats.spectrum._errorbars import jackknife_samples as jackknife_samples
from ntkstats.spectrum._gradients import cosine_kernel as cosine_kernel
from ntkstats.spectrum._gradients import covariance_entropy as covariance_entropy
from ntkstats.spectrum._gradients import self_entropy as self_entropy
from ntkstats.spectrum._ranks import condition_number as condition_number
from ntkstats.spectrum._ranks import log_determinant as log_determinant
from ntkstats.spectrum._ranks import mean_diagonal as mean_diagonal
from ntkstats.spectrum._ranks import stable_rank as stable_rank
from ntkstats.spectrum._ranks import top_k as top_k
from ntkstats.spectrum._ranks import uniform_divergence as uniform_divergence
from ntkstats.spectrum._renyi import participation_ratio as participation_ratio
from ntkstats.spectrum._renyi import renyi2_entropy as renyi2_entropy
from ntkstats.spectrum._solvers import choose_solver as choose_solver
from ntkstats.spectrum._top import TopEigenvalues as TopEigenvalues
from ntkstats.spectrum._top import top_eigenvalues as top_eigenvalues
from ntkstats.typing import Estimate as Estimate

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Estimate",
    "TopEigenvalues",
    "as_convention",
    "center_kernel",
    "choose_solver",
    "cka",
    "condition_number",
    "cosine_kernel",
    "covariance_entropy",
    "effective_entropy",
    "effective_rank",
    "eigenvalues",
    "entropy",
    "entropy_estimate",
    "exact",
    "jackknife_draws",
    "jackknife_samples",
    "kernel_target_alignment",
    "kernel_velocity",
    "log_determinant",
    "mean_diagonal",
    "negative_mass",
    "participation_ratio",
    "renyi2_entropy",
    "self_entropy",
    "spectral_distribution",
    "stable_rank",
    "top_eigenvalues",
    "top_k",
    "uniform_divergence",
    "von_neumann_entropy",
]
