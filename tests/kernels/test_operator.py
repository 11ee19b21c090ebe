"""The kernel as an operator against the kernel as a matrix."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.errors import BudgetError, KernelError
from ntkstats.kernels._types import OUTPUT_MODES
from ntkstats.models import Probe

from .networks import dense, mlp_params, system
from .oracle import error, jacobian, kernel

KEY = jax.random.key(4)
RNG = np.random.default_rng(8)


@functools.cache
def operator(name, outputs):
    s = system(name)
    return kernels.ntk_operator(*s.arguments, outputs=outputs, key=KEY, draws=4)


def matrix(name, outputs):
    return kernel(dense(name), outputs, operator(name, outputs).plan.signs)


@pytest.mark.parametrize("outputs", OUTPUT_MODES)
def test_products_are_those_of_the_matrix(outputs):
    op, K = operator("mlp", outputs), matrix("mlp", outputs)
    v = RNG.normal(size=(len(K), 2)).astype(np.float32)
    assert op.shape == K.shape
    assert op.dtype == jnp.float32
    assert error(op @ v, K @ v) < 1e-5
    np.testing.assert_allclose(op @ v[:, 0], (op @ v)[:, 0], rtol=1e-5, atol=1e-6 * np.abs(K).max())
    assert error(op.to_dense(), K) < 1e-5


@pytest.mark.parametrize("name", ["cnn", "graph"])
def test_products_are_those_of_the_matrix_for_every_kind_of_model(name):
    K = matrix(name, "full")
    v = RNG.normal(size=len(K)).astype(np.float32)
    assert error(operator(name, "full") @ v, K @ v) < 1e-5


def test_operator_is_symmetric():
    op = operator("mlp", "full")
    u, v = RNG.normal(size=(2, op.shape[0])).astype(np.float32)
    np.testing.assert_allclose(u @ (op @ v), v @ (op @ u), rtol=1e-4)


@pytest.mark.parametrize(("name", "unroll"), [("mlp", False), ("cnn", True), ("cnn", False)])
def test_products_do_not_depend_on_the_chunks(name, unroll):
    op = operator(name, "full")
    chunked = dataclasses.replace(op, chunk=4, unroll=unroll)
    v = RNG.normal(size=op.shape[0]).astype(np.float32)
    assert op.chunk == 6
    assert error(chunked @ v, op @ v) < 1e-6


def test_chunks_follow_the_budget_and_the_matrix_need_not_fit():
    s = system("mlp").on(np.resize(system("mlp").x, (300, 4)))
    budget = 20_000
    with pytest.raises(BudgetError, match="Raise budget_bytes"):
        kernels.empirical_ntk(*s.arguments, budget_bytes=budget)
    op = kernels.ntk_operator(*s.arguments, budget_bytes=budget)
    assert 1 <= op.chunk < 300
    assert kernels.ntk_operator(*s.arguments).chunk == 300


def test_a_budget_for_less_than_one_sample_is_refused():
    model = system("mlp").model
    params, state = model.split(mlp_params((4, 40, 40, 6)))
    x = system("mlp").x[:2]
    with pytest.raises(BudgetError, match=r"one product with 1 sample\(s\) at a time needs"):
        kernels.ntk_operator(model, params, state, x, budget_bytes=20_000)
    assert kernels.ntk_operator(model, params, state, x, budget_bytes=80_000).chunk == 2


def test_weights_and_averaging_scale_products():
    s = system("mlp")
    weight = np.array([1.0, 0.0, 2.0, 0.25, 4.0, 1.0])
    options = {"outputs": "trace", "average_outputs": True}
    probe = Probe(s.x, weight=weight)
    op = kernels.ntk_operator(*s.arguments[:3], probe, **options)
    K = kernels.empirical_ntk(*s.arguments[:3], probe, **options).matrix
    assert error(op.to_dense(), K) < 1e-5
    full = kernels.ntk_operator(*s.arguments[:3], probe)
    assert error(full.to_dense(), kernels.empirical_ntk(*s.arguments[:3], probe).matrix) < 1e-5


def test_half_precision_parameters_give_float32_products():
    model = system("mlp").model
    params, state = model.split(mlp_params(dtype=jnp.bfloat16))
    x = system("mlp").x
    op = kernels.ntk_operator(model, params, state, x)
    v = RNG.normal(size=op.shape[0]).astype(np.float32)
    product = op @ v
    assert product.dtype == jnp.float32
    assert error(product, kernel(jacobian(model, params, state, x), "full") @ v) < 0.03


def test_products_compile_once():
    s = system("mlp")
    op = operator("mlp", "full")
    v = jnp.ones(op.shape[0])
    before = kernels._operator._matmul._cache_size()
    op @ v
    first = kernels._operator._matmul._cache_size()
    op @ (2 * v)
    dataclasses.replace(op, params=jax.tree.map(lambda p: p + 1, s.params)) @ v
    assert kernels._operator._matmul._cache_size() == first <= before + 1


@pytest.mark.parametrize("shape", [(5,), (), (19, 2), (18, 2, 2)])
def test_vectors_of_another_length_are_refused(shape):
    with pytest.raises(KernelError, match=r"expected \(18,\)"):
        operator("mlp", "full") @ jnp.ones(shape)
