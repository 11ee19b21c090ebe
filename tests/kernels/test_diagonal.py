"""Diagonals and traces without pairs."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.kernels._tiles import Tiling
from ntkstats.models import Probe

from .networks import N, dense, retiled, system
from .oracle import kernel

KEY = jax.random.key(2)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("mlp", "full"),
        ("mlp", "trace"),
        ("mlp", "sum"),
        ("mlp", "probe"),
        ("cnn", "trace"),
        ("graph", "full"),
    ],
)
def test_diagonal_is_that_of_the_dense_kernel(name, outputs):
    s = system(name)
    signs = None
    if outputs == "probe":
        signs = kernels.plan(*s.arguments, outputs=outputs, key=KEY).signs
    got = kernels.ntk_diagonal(*s.arguments, outputs=outputs, key=KEY)
    expected = np.diagonal(kernel(dense(name), outputs, signs))
    np.testing.assert_allclose(got, expected, rtol=2e-5)


def test_diagonal_does_not_depend_on_the_budget():
    s = system("mlp")
    s = s.on(np.resize(s.x, (23, 4)))
    plan = kernels.plan(*s.arguments, budget_bytes=8_000, pairs=False)
    assert plan.diagonal_tiling.samples < 23
    whole = kernels.ntk_diagonal(*s.arguments)
    tight = kernels.ntk_diagonal(*s.arguments, budget_bytes=8_000)
    np.testing.assert_allclose(tight, whole, rtol=1e-6)


def test_unrolled_diagonal_equals_the_rolled_one():
    s = system("cnn")
    plan = kernels.plan(*s.arguments)
    norms = [
        retiled(plan, Tiling(4, 2, unroll)).diagonal(*s.arguments[1:]) for unroll in (True, False)
    ]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    np.testing.assert_allclose(norms[0].sum(0).ravel(), kernels.ntk_diagonal(*s.arguments), 1e-5)


def test_weights_and_averaging_scale_the_diagonal():
    s = system("mlp")
    weight = np.array([1.0, 0.0, 2.0, 0.25, 4.0, 1.0])
    probe = Probe(s.x, weight=weight)
    whole = kernels.ntk_diagonal(*s.arguments, outputs="trace")
    got = kernels.ntk_diagonal(*s.arguments[:3], probe, outputs="trace", average_outputs=True)
    np.testing.assert_allclose(got, weight * np.asarray(whole) / 3, rtol=1e-6)


def test_diagonal_in_float64_is_exact_to_float64():
    got = kernels.ntk_diagonal(*system("mlp").arguments, precision="float64")
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, np.diagonal(kernel(dense("mlp"), "full")), rtol=1e-12)


# --- traces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "cnn", "graph"])
def test_exact_trace_is_the_squared_norm_of_the_jacobian(name):
    s = system(name)
    trace = kernels.ntk_trace(*s.arguments)
    J = dense(name)
    np.testing.assert_allclose(trace.value, np.sum(J**2), rtol=1e-5)
    assert (float(trace.stderr), trace.method, trace.seed) == (0.0, "exact", None)
    assert trace.cost == J.shape[0] * J.shape[1]


def test_trace_in_float64_is_exact_to_float64():
    trace = kernels.ntk_trace(*system("mlp").arguments, precision="float64")
    np.testing.assert_allclose(trace.value, np.sum(dense("mlp") ** 2), rtol=1e-12)


@functools.cache
def estimates():
    """Forty independent estimates of one trace."""
    s = system("mlp")
    return [
        kernels.ntk_trace(*s.arguments, estimator="rademacher", draws=16, seed=seed)
        for seed in range(40)
    ]


def test_rademacher_trace_is_unbiased_and_its_standard_error_is_calibrated():
    exact = np.sum(dense("mlp") ** 2)
    z = np.array([(float(e.value) - exact) / float(e.stderr) for e in estimates()])
    assert np.abs(z.mean()) < 3 / np.sqrt(len(z))
    assert np.mean(np.abs(z) < 2.13) > 0.8  # two-sided 95 % of Student's t with 15 degrees
    assert 0.6 < z.std() < 1.6


def test_rademacher_trace_says_how_it_was_obtained():
    estimate = estimates()[7]
    assert (estimate.method, estimate.cost, estimate.seed) == ("rademacher", 16 * N, 7)
    again = kernels.ntk_trace(*system("mlp").arguments, estimator="rademacher", draws=16, seed=7)
    assert float(again.value) == float(estimate.value)
    assert float(estimates()[8].value) != float(estimate.value)


def test_rademacher_trace_of_one_output_has_no_error():
    """With one output every sign vector gives the same kernel."""
    s = system("critic")
    estimate = kernels.ntk_trace(*s.arguments, head="critic", estimator="rademacher", draws=4)
    np.testing.assert_allclose(estimate.value, np.sum(dense("critic") ** 2), rtol=1e-5)
    assert float(estimate.stderr) < 1e-5 * float(estimate.value)


def test_weights_enter_the_trace():
    s = system("mlp")
    weight = np.array([1.0, 0.0, 2.0, 0.25, 4.0, 1.0])
    trace = kernels.ntk_trace(*s.arguments[:3], Probe(s.x, weight=weight))
    np.testing.assert_allclose(trace.value, np.einsum("n,ncp->", weight, dense("mlp") ** 2), 1e-5)
