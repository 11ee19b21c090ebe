"""Gram matrices against dense Jacobians, hand formulas and their invariants."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.kernels._types import OUTPUT_MODES
from ntkstats.models import Probe, as_model, layer_names

from .networks import SYSTEMS, N, X, dense, dense_leaves, mlp_params, system
from .oracle import error, jacobian, kernel

KEY = jax.random.key(11)
EPS = np.finfo(np.float32).eps


@functools.cache
def gram(name, outputs):
    s = system(name)
    return kernels.empirical_ntk(*s.arguments, head=s.head, outputs=outputs, key=KEY)


@functools.cache
def signs(name):
    s = system(name)
    return kernels.plan(*s.arguments, head=s.head, outputs="probe", key=KEY).signs


@pytest.fixture(params=OUTPUT_MODES)
def outputs(request):
    return request.param


# --- exactness --------------------------------------------------------------------------------


# Every mode on one network of each kind of layer; on the rest the two that differ most.
EVERY_MODE = ("mlp", "cnn", "transformer", "graph")
CASES = [
    (name, mode)
    for name in SYSTEMS
    for mode in (OUTPUT_MODES if name in EVERY_MODE else ("full", "probe"))
]


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_kernel_equals_dense_jacobians(name, outputs):
    K = gram(name, outputs)
    given = signs(name) if outputs == "probe" else None
    assert K.matrix.dtype == jnp.float32
    assert error(K.matrix, kernel(dense(name), outputs, given)) < 1e-5


def test_kernel_of_a_two_layer_linear_network_follows_its_formula():
    rng = np.random.default_rng(0)
    V, W, x = rng.normal(size=(5, 4)), rng.normal(size=(3, 5)), rng.normal(size=(7, 4))
    model = as_model(lambda p, x: x @ p["V"].T @ p["W"].T)
    params, state = model.split({"V": jnp.asarray(V), "W": jnp.asarray(W)})
    K = kernels.empirical_ntk(model, params, state, jnp.asarray(x))
    hidden = x @ V.T
    expected = np.kron(hidden @ hidden.T, np.eye(3)) + np.kron(x @ x.T, W @ W.T)
    assert error(K.matrix, expected) < 1e-5
    assert error(K.layer_traces["W"], 3 * np.sum(hidden**2)) < 1e-5
    assert error(K.layer_traces["V"], np.sum(x**2) * np.sum(W**2)) < 1e-5


def test_half_precision_parameters_give_a_float32_kernel():
    params = mlp_params(dtype=jnp.bfloat16)
    model = system("mlp").model
    params, state = model.split(params)
    K = kernels.empirical_ntk(model, params, state, X, outputs="trace")
    assert K.matrix.dtype == jnp.float32
    assert error(K.matrix, kernel(jacobian(model, params, state, X), "trace")) < 0.03


def test_sum_kernel_adds_all_blocks_of_the_full_kernel():
    full = np.asarray(gram("mlp", "full").matrix).reshape(N, 3, N, 3)
    assert error(gram("mlp", "sum").matrix, full.sum((1, 3))) < 1e-5
    assert error(gram("mlp", "trace").matrix, np.einsum("ncmc->nm", full)) < 1e-5


def test_each_draw_of_the_probe_kernel_is_a_quadratic_form_of_the_full_kernel():
    full = np.asarray(gram("mlp", "full").matrix).reshape(N, 3, N, 3)
    v = np.asarray(signs("mlp"))
    assert set(np.unique(v)) == {-1.0, 1.0}
    K = gram("mlp", "probe")
    assert error(K.draws, np.einsum("dc,ncme,de->dnm", v, full, v)) < 1e-5
    assert error(K.matrix, np.asarray(K.draws).mean(0)) < 1e-6


@pytest.mark.parametrize("name", ["mlp", "transformer", "graph"])
def test_quadratic_form_is_the_squared_gradient_of_the_weighted_outputs(name):
    """One ordinary gradient of the whole batch, with no Jacobian anywhere."""
    s = system(name)
    K = np.asarray(gram(name, "full").matrix, np.float64)
    v = np.cos(np.arange(len(K))).astype(np.float32)

    def weighted(params):
        return jnp.sum(s.model.apply(params, s.state, s.x)[s.head].ravel() * v)

    gradient = jax.tree.leaves(jax.jit(jax.grad(weighted))(s.params))
    squared = sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in gradient)
    np.testing.assert_allclose(v @ K @ v, squared, rtol=1e-4)


def test_probe_kernel_is_an_unbiased_estimate_of_the_trace_kernel():
    K = kernels.empirical_ntk(*system("mlp").arguments, outputs="probe", draws=400, key=KEY)
    draws = np.asarray(K.draws, np.float64)
    deviation = draws.mean(0) - np.asarray(gram("mlp", "trace").matrix)
    z = deviation / (draws.std(0, ddof=1) / np.sqrt(len(draws)))
    assert np.abs(z).max() < 4.5
    assert np.sqrt(np.mean(z**2)) < 2.0


# --- invariants -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "cnn", "graph"])
def test_kernel_is_exactly_symmetric_and_positive(name, outputs):
    K = np.asarray(gram(name, outputs).matrix)
    values = np.linalg.eigvalsh(K.astype(np.float64))
    np.testing.assert_array_equal(K, K.T)
    assert values[0] >= -len(K) * EPS * values[-1]


@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer", "graph"])
def test_trace_is_the_squared_norm_of_the_jacobian(name, outputs):
    K = gram(name, outputs)
    squared = np.sum(dense(name) ** 2)
    values = np.linalg.eigvalsh(np.asarray(K.matrix, np.float64))
    layers = sum(float(value) for value in K.layer_traces.values())
    for value in (K.trace, K.diagonal.sum(), values.sum(), layers):
        np.testing.assert_allclose(value, squared, rtol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_layer_traces_are_those_of_the_layers_own_jacobians(name, outputs):
    s = system(name)
    expected = {}
    given = signs(name) if outputs == "probe" else None
    for (layer, _), leaf in zip(layer_names(s.params), dense_leaves(name), strict=True):
        part = np.trace(kernel(leaf, outputs, given))
        expected[layer] = expected.get(layer, 0.0) + part
    K = gram(name, outputs)
    assert list(K.layer_traces) == list(expected)
    for layer, value in expected.items():
        np.testing.assert_allclose(K.layer_traces[layer], value, rtol=2e-5)
    np.testing.assert_allclose(sum(K.layer_traces.values()), K.trace, rtol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_reordering_samples_reorders_the_kernel(name):
    s = system(name)
    order = np.array([3, 0, 5, 1, 4, 2])
    K = np.asarray(gram(name, "trace").matrix)
    permuted = kernels.empirical_ntk(*s.on(s.x[order]).arguments, outputs="trace")
    assert error(permuted.matrix, K[np.ix_(order, order)]) < 1e-6


def test_trace_kernel_is_invariant_to_a_rotation_of_the_outputs():
    s = system("mlp")
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    model = as_model(lambda p, x: s.model.apply(p, s.state, x)["output"] @ jnp.asarray(rotation))
    params, state = model.split(s.params)
    rotated = kernels.empirical_ntk(model, params, state, s.x, outputs="trace")
    assert error(rotated.matrix, gram("mlp", "trace").matrix) < 1e-5
    summed = kernels.empirical_ntk(model, params, state, s.x, outputs="sum")
    assert error(summed.matrix, gram("mlp", "sum").matrix) > 1e-2


@pytest.mark.parametrize("outputs", ["trace", "sum", "probe"])
def test_averaging_outputs_divides_by_their_number(outputs):
    K = kernels.empirical_ntk(
        *system("mlp").arguments, outputs=outputs, average_outputs=True, key=KEY
    )
    whole = gram("mlp", outputs)
    assert K.average_outputs
    assert not whole.average_outputs
    np.testing.assert_allclose(K.matrix, whole.matrix / 3, rtol=1e-6)
    for layer, value in whole.layer_traces.items():
        np.testing.assert_allclose(K.layer_traces[layer], value / 3, rtol=1e-6)


def test_weights_scale_rows_and_columns_by_their_roots(outputs):
    s = system("mlp")
    weight = np.array([1.0, 0.0, 2.0, 0.25, 4.0, 1.0])
    probe = Probe(s.x, weight=weight)
    K = kernels.empirical_ntk(*s.arguments[:3], probe, outputs=outputs, key=KEY)
    root = np.sqrt(np.repeat(weight, 3 if outputs == "full" else 1))
    np.testing.assert_allclose(
        K.matrix, root[:, None] * np.asarray(gram("mlp", outputs).matrix) * root, rtol=1e-5
    )
    np.testing.assert_array_equal(K.matrix, K.matrix.T)
    np.testing.assert_allclose(sum(K.layer_traces.values()), K.trace, rtol=1e-5)


def test_equal_samples_give_equal_rows():
    s = system("mlp")
    K = kernels.empirical_ntk(*s.on(np.repeat(s.x[:3], 2, 0)).arguments, outputs="trace").matrix
    np.testing.assert_allclose(K[0::2], K[1::2], rtol=1e-6)


# --- the result -------------------------------------------------------------------------------


def test_kernel_says_what_it_is(outputs):
    K = gram("actor", outputs)
    size = 5 * 3 if outputs == "full" else 5
    assert K.matrix.shape == (size, size)
    assert (K.outputs, K.head, K.n_samples, K.n_outputs) == (outputs, "actor", 5, 3)
    assert (K.method, K.covers) == ("structured", "all")
    assert (K.draws is None) == (outputs != "probe")


def test_kernel_says_which_parameters_it_covers():
    assert gram("filtered", "full").covers == "1/*"
    assert set(gram("filtered", "full").layer_traces) == {"1"}


def test_kernel_passes_through_jit_with_its_meaning():
    K = gram("mlp", "probe")
    doubled = jax.jit(lambda K: jax.tree.map(lambda leaf: 2 * leaf, K))(K)
    assert (doubled.outputs, doubled.n_outputs) == (K.outputs, K.n_outputs)
    np.testing.assert_allclose(doubled.matrix, 2 * K.matrix)
    assert set(doubled.layer_traces) == set(K.layer_traces)


def test_raw_inputs_and_a_probe_give_one_kernel():
    s = system("embedding")
    K = kernels.empirical_ntk(*s.arguments[:3], Probe(s.x))
    np.testing.assert_array_equal(K.matrix, gram("embedding", "full").matrix)
