"""Matrices whose spectra are known because they were prescribed."""

from __future__ import annotations

import numpy as np
import pytest

SPECTRA = {
    "decaying": lambda n: 1.0 / np.arange(1, n + 1) ** 1.5,
    "step": lambda n: np.where(np.arange(n) < (n + 1) // 2, 1.0, 1e-3),
    "one_dominant": lambda n: np.r_[1.0, np.full(n - 1, 1e-4)],
    "clustered": lambda n: 1.0 + 1e-6 * np.arange(n)[::-1],
    "low_rank": lambda n: np.where(np.arange(n) < max(1, n // 3), 2.0, 0.0),
}


def prescribed_spectrum(name: str, n: int) -> np.ndarray:
    """Eigenvalues [n] in float64, descending."""
    return np.sort(SPECTRA[name](n))[::-1]


def matrix_with_spectrum(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Q diag(values) Q^T in float64 with a random rotation Q."""
    n = len(values)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    K = (q * values) @ q.T
    return 0.5 * (K + K.T)


@pytest.fixture(params=sorted(SPECTRA))
def spectrum_name(request) -> str:
    return request.param


@pytest.fixture
def prescribed():
    return prescribed_spectrum


@pytest.fixture
def rotated():
    return matrix_with_spectrum


@pytest.fixture
def gram():
    """A well-conditioned random Gram matrix in float32 as a JAX array."""
    import jax.numpy as jnp

    def make(n: int, seed: int = 0, features: int | None = None):
        J = np.random.default_rng(seed).normal(size=(n, features or 3 * n))
        return jnp.asarray(J @ J.T, jnp.float32)

    return make
