"""What networks do besides multiplying real numbers: complex products and lookups.

XLA writes programs with indices of one byte, into tables that are longer than they count, out of
bounds unless it optimises.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.models import as_model

from .oracle import error, jacobian, kernel

pytestmark = pytest.mark.optimised


def fourier(params, x):
    """A Fourier layer: real parameters, complex products."""
    weight = params["re"] + 1j * params["im"]
    mixed = jnp.einsum("ntd,tde->nte", jnp.fft.rfft(x, axis=1), weight)
    return jnp.fft.irfft(mixed, 5, axis=1).mean(1)


def imaginary(params, x):
    """The imaginary part of a complex product."""
    turned = x.astype(jnp.complex64) * (1 + 1j)
    return (turned @ params["re"][0].astype(jnp.complex64)).mean(1).imag


@pytest.mark.parametrize("network", [fourier, imaginary])
def test_complex_numbers_between_real_ones_are_not_taken_apart(network):
    rng = np.random.default_rng(0)
    params = {k: jnp.asarray(rng.normal(size=(3, 6, 2)), jnp.float32) for k in ("re", "im")}
    x = rng.normal(size=(3, 5, 6)).astype(np.float32)
    check_everywhere(network, params, x)


def looked_up(mode, params, ids):
    rows = jnp.take(params["table"], ids, axis=0, mode=mode, fill_value=0.0)
    return jnp.tanh(rows).sum(1) @ params["out"]


@pytest.mark.parametrize(
    ("dtype", "mode", "rows"),
    [
        ("uint8", "fill", 256),
        ("uint8", "clip", 256),
        ("uint8", "fill", 50),
        ("int8", "fill", 200),
        ("uint32", "fill", 50),
        ("uint32", "clip", 50),
        ("int32", "fill", 50),
    ],
)
def test_indices_of_any_type_in_and_out_of_range(dtype, mode, rows):
    rng = np.random.default_rng(1)
    params = {"table": rng.normal(size=(rows, 64)), "out": rng.normal(size=(64, 3))}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    # The first and the last sample alike, a table that is longer than some types count.
    ids = np.array([[1, 2], [3, 4], [60, 5], [70, 6], [1, 2]]).astype(dtype)
    check_everywhere(functools.partial(looked_up, mode), params, ids)


def check_everywhere(network, params, x):
    """Planned eagerly, without the checks of the model, and inside jit."""
    model = as_model(network)
    params, state = model.split(params)
    expected = kernel(jacobian(model, params, state, x), "full")
    eager = kernels.empirical_ntk(model, params, state, x)
    assert eager.method == "structured"
    plan = kernels.plan(model, params, state, x, checked=True)
    traced = jax.jit(lambda p: kernels.empirical_ntk(model, p, state, x).matrix)(params)
    for matrix in (eager.matrix, plan.gram(params, state, x).matrix, traced):
        assert error(matrix, expected) <= 1e-5
