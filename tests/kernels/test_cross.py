"""Kernels between two sets of inputs, and between two moments of training."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.errors import BudgetError
from ntkstats.kernels._types import OUTPUT_MODES
from ntkstats.models import Probe

from .networks import dense, mlp_params, system
from .oracle import error, jacobian, kernel

KEY = jax.random.key(6)
RNG = np.random.default_rng(2)
OTHER = RNG.normal(size=(4, 4)).astype(np.float32)


@functools.cache
def signs():
    return kernels.plan(*system("mlp").arguments, outputs="probe", key=KEY).signs


def ntk(s, **options):
    return kernels.empirical_ntk(*s.arguments, key=KEY, **options)


@pytest.mark.parametrize("outputs", OUTPUT_MODES)
def test_cross_kernel_equals_dense_jacobians(outputs):
    s = system("mlp")
    K = ntk(s, outputs=outputs, cross=OTHER)
    J, J2 = dense("mlp"), jacobian(*s.on(OTHER).arguments)
    given = signs() if outputs == "probe" else None
    assert error(K.matrix, kernel(J, outputs, given, J2)) < 1e-5
    assert K.layer_traces == {}


@pytest.mark.parametrize("name", ["cnn", "graph"])
def test_cross_kernel_of_other_models_equals_dense_jacobians(name):
    s = system(name)
    few = np.array([4, 1, 2])
    other = s.x if name == "graph" else jax.tree.map(lambda leaf: leaf[few], s.x)
    K = ntk(s, outputs="trace", cross=other)
    J2 = jacobian(*s.on(other).arguments)
    assert error(K.matrix, kernel(dense(name), "trace", J2=J2)) < 1e-5


def test_kernel_between_two_moments_of_training_equals_dense_jacobians():
    s = system("mlp")
    later = mlp_params(seed=1)
    J, J2 = dense("mlp"), jacobian(s.model, later, s.state, s.x)
    K = ntk(s, outputs="full", cross_params=later)
    assert error(K.matrix, kernel(J, "full", J2=J2)) < 1e-5
    both = ntk(s, outputs="full", cross_params=later, cross=OTHER)
    J3 = jacobian(s.model, later, s.state, OTHER)
    assert error(both.matrix, kernel(J, "full", J2=J3)) < 1e-5


def test_state_of_the_second_side_is_its_own():
    s = system("nnx")
    other = jax.tree.map(lambda leaf: leaf + 1 if leaf.dtype == np.float32 else leaf, s.state)
    K = ntk(s, outputs="trace", cross_params=s.params, cross_state=other)
    J2 = jacobian(s.model, s.params, other, s.x)
    assert error(K.matrix, kernel(dense("nnx"), "trace", J2=J2)) < 1e-5
    assert error(K.matrix, ntk(s, outputs="trace").matrix) > 1e-3


@pytest.mark.parametrize("outputs", ["full", "probe"])
def test_cross_kernel_with_itself_is_the_symmetric_kernel(outputs):
    s = system("mlp")
    K = ntk(s, outputs=outputs)
    assert error(ntk(s, outputs=outputs, cross=s.x).matrix, K.matrix) < 1e-6
    assert error(ntk(s, outputs=outputs, cross_params=s.params).matrix, K.matrix) < 1e-6


def test_swapping_the_sides_transposes_the_kernel():
    s = system("mlp")
    K = ntk(s, cross=OTHER).matrix
    assert error(ntk(s.on(OTHER), cross=s.x).matrix, np.asarray(K).T) < 1e-6


@pytest.mark.parametrize("outputs", ["full", "trace", "probe"])
def test_cross_kernel_does_not_depend_on_the_budget(outputs):
    s = system("mlp").on(RNG.normal(size=(11, 4)).astype(np.float32))
    whole = ntk(s, outputs=outputs, cross=OTHER)
    budget = 30_000 if outputs == "full" else 14_000
    plan = kernels.plan(*s.arguments, outputs=outputs, cross=OTHER, budget_bytes=budget, key=KEY)
    assert plan.tiling.samples < 11
    tight = ntk(s, outputs=outputs, cross=OTHER, budget_bytes=budget)
    assert error(tight.matrix, whole.matrix) < 1e-6


def test_the_budget_counts_the_cross_kernel_and_not_the_square_of_its_longer_side():
    s = system("mlp")
    many = np.resize(OTHER, (2000, 4))
    with pytest.raises(BudgetError):
        ntk(s.on(many), outputs="trace", budget_bytes=10**6)
    K = ntk(s, outputs="trace", cross=many, budget_bytes=10**6)
    assert K.matrix.shape == (6, 2000)


def test_weights_of_each_side_scale_its_axis():
    s = system("mlp")
    weight, weight2 = np.array([1.0, 0.0, 2.0, 0.25, 4.0, 1.0]), np.array([1.0, 3.0, 0.0, 0.5])
    probe, other = Probe(s.x, weight=weight), Probe(OTHER, weight=weight2)
    plain = np.asarray(ntk(s, outputs="trace", cross=OTHER).matrix)
    both = ntk(s.on(probe), outputs="trace", cross=other).matrix
    left = ntk(s.on(probe), outputs="trace", cross=OTHER).matrix
    np.testing.assert_allclose(left, np.sqrt(weight)[:, None] * plain, rtol=1e-5)
    np.testing.assert_allclose(both, np.sqrt(weight)[:, None] * plain * np.sqrt(weight2), 1e-5)
    moments = ntk(s.on(probe), outputs="trace", cross_params=s.params).matrix
    weighted = ntk(s.on(probe), outputs="trace").matrix
    np.testing.assert_allclose(moments, weighted, rtol=1e-5)


def test_cross_kernel_in_float64_is_exact_to_float64():
    s = system("mlp")
    K = ntk(s, cross=OTHER, precision="float64")
    J2 = jacobian(*s.on(OTHER).arguments)
    assert error(K.matrix, kernel(dense("mlp"), "full", J2=J2)) < 1e-12
