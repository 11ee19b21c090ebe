"""The parts of the structured engine: graphs, layouts, groups of parameters, and what happens when
something is wrong."""

from __future__ import annotations

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkstats import kernels
from ntkstats._compat import trace
from ntkstats.errors import EngineWarning, KernelError
from ntkstats.kernels import _decide
from ntkstats.kernels.structured import _structured
from ntkstats.kernels.structured._layout import Piece, pattern, reshaped, transposed
from ntkstats.models import as_model

from ..models.cases import plain_mlp
from .networks import mlp_params, system
from .oracle import error, jacobian, kernel

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


# --- graphs -----------------------------------------------------------------------------------


def recurrent(w, x):
    def step(carry, u):
        hidden, total = carry
        hidden = jnp.tanh(hidden @ w + u)
        return (hidden, total + hidden.sum()), hidden * 2

    (hidden, total), stacked = jax.lax.scan(step, (jnp.zeros(3), 0.0), x)
    return hidden, total, jax.lax.cond(total > 0, jnp.sin, jnp.cos, stacked)


W = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)), jnp.float32)
U = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)), jnp.float32)


def test_a_graph_computes_what_the_function_does():
    graph = trace(jax.jit(recurrent), W, U)
    for got, expected in zip(graph.run(W, U), recurrent(W, U), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_pruned_scan_carries_only_what_is_needed():
    graph = trace(recurrent, W, U)
    smaller = graph.pruned(graph.outputs[:1])
    (scan,) = [eqn for eqn in smaller.equations if eqn.body is not None]
    assert scan.n_carry == 1
    assert len(scan.outputs) == 1
    np.testing.assert_allclose(smaller.run(W, U)[0], recurrent(W, U)[0], rtol=1e-6)


def test_a_scan_can_be_made_to_return_what_happens_inside():
    graph = trace(recurrent, W, U)
    (scan,) = [eqn for eqn in graph.equations if eqn.body is not None]
    tanh = next(eqn.outputs[0] for eqn in scan.body.equations if eqn.name == "tanh")
    inside = scan.emit(tanh)
    assert scan.emit(tanh) is inside
    np.testing.assert_allclose(graph.pruned([inside]).run(W, U)[0][-1], recurrent(W, U)[0], 1e-6)


def test_dependence_reaches_through_carries():
    graph = trace(recurrent, W, U)
    only_x = graph.depending(graph.inputs[1:])
    assert all(v in only_x for v in graph.outputs)
    constant = trace(lambda w, x: (w @ w, x + 1), W, U)
    assert [v in constant.depending(constant.inputs[1:]) for v in constant.outputs] == [False, True]


# --- layouts ----------------------------------------------------------------------------------

FACTORS = {"L": (2, 3), "R": (4,)}


@given(st.permutations(range(3)), st.sampled_from([(24,), (6, 4), (2, 12), (4, 6), (3, 2, 2, 2)]))
@settings(deadline=None, max_examples=60)
def test_axes_are_found_again_behind_transposes_and_reshapes(permutation, shape):
    left, right = np.arange(6.0).reshape(2, 3) + 1, np.arange(4.0) + 7
    layout = [[Piece("L", 0, 2)], [Piece("L", 1, 3)], [Piece("R", 0, 4)]]
    array = np.multiply.outer(left, right)
    moved = reshaped(transposed(layout, permutation), shape)
    if moved is None:
        return
    sizes = {("L", 0): 2, ("L", 1): 3, ("R", 0): 4}
    found = pattern(moved, sizes)
    result = array.transpose(permutation).reshape(shape)
    if found is None or len(found.runs) > 2:
        return
    ordered = left.transpose(found.left).ravel()
    ends = (ordered, right) if found.runs[0][0] == "L" else (right, ordered)
    np.testing.assert_array_equal(result.ravel(), np.multiply.outer(*ends).ravel())


def test_an_axis_that_is_torn_apart_has_no_pattern():
    layout = reshaped([[Piece("L", 0, 4)], [Piece("R", 0, 3)]], (2, 2, 3))
    torn = transposed(layout, (0, 2, 1))
    assert pattern(torn, {("L", 0): 4, ("R", 0): 3}) is None
    assert reshaped([[Piece("L", 0, 4)], [Piece("R", 0, 3)]], (3, 4)) is None


# --- groups of parameters ---------------------------------------------------------------------


def deep():
    sizes = (4, *(48,) * 6, 3)
    params = [(w[None] * jnp.ones((1, 1, 1)), b) for w, b in mlp_params(sizes)]

    def convolutional(params, x):
        for w, b in params[:-1]:
            x = jnp.tanh(jnp.einsum("nti,ij->ntj", x, w[0]) + b)
        return x.mean(1) @ params[-1][0][0] + params[-1][1]

    x = np.random.default_rng(0).normal(size=(24, 20, 4)).astype(np.float32)
    return convolutional, params, x


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_groups_of_parameters_add_up_to_the_kernel(outputs):
    function, params, x = deep()
    model = as_model(function)
    params, state = model.split(params)
    whole = kernels.plan(model, params, state, x, outputs=outputs)
    plan = kernels.plan(model, params, state, x, outputs=outputs, budget_bytes=500_000)
    assert len(whole.streams) == 1
    assert len(plan.streams) > 1
    K, expected = (p.gram(params, state, x) for p in (plan, whole))
    assert error(K.matrix, expected.matrix) < 1e-6
    assert list(K.layer_traces) == list(expected.layer_traces)
    for layer, value in expected.layer_traces.items():
        np.testing.assert_allclose(K.layer_traces[layer], value, rtol=1e-5)
    assert "group 2" in str(plan)


# --- cross kernels between inputs of unequal size ---------------------------------------------


def pooled(params, x):
    hidden = jnp.tanh(x @ params["a"])
    return (hidden @ params["b"]).mean(1)


@pytest.mark.parametrize("lengths", [(2, 3), (2, 60)])
def test_cross_kernel_between_sequences_of_unequal_length(lengths):
    rng = np.random.default_rng(4)
    shapes = {"a": (6, 20), "b": (20, 2)}
    model = as_model(pooled)
    params, state = model.split({k: jnp.asarray(rng.normal(size=s)) for k, s in shapes.items()})
    x, other = (rng.normal(size=(4, t, 6)).astype(np.float32) for t in lengths)
    J, J2 = (jacobian(model, params, state, inputs) for inputs in (x, other))
    K = kernels.empirical_ntk(model, params, state, x, cross=other)
    assert error(K.matrix, kernel(J, "full", J2=J2)) < 1e-5


# --- when something is wrong ------------------------------------------------------------------


def fresh():
    """A model that no plan has seen."""
    model = as_model(lambda params, x: plain_mlp(params, x))
    return (model, *model.split(mlp_params()), X)


def test_a_wrong_engine_is_found_out_and_replaced(monkeypatch):
    arguments = fresh()
    expected = kernels.empirical_ntk(*arguments, method="reference").matrix
    right = _structured._accumulated
    monkeypatch.setattr(_structured, "_accumulated", lambda value: 1.01 * right(value))
    with pytest.warns(EngineWarning, match=r"v\^T K v = "):
        K = kernels.empirical_ntk(*arguments)
    assert K.method == "reference"
    np.testing.assert_array_equal(K.matrix, expected)
    with pytest.raises(KernelError, match="cannot be used"):
        kernels.empirical_ntk(*arguments, method="structured")


def test_a_trace_that_cannot_be_read_degrades_with_one_warning(monkeypatch):
    def unknown(*_):
        raise AttributeError("scan has other parameters now")

    monkeypatch.setattr(_decide, "structure_of", unknown)
    arguments = fresh()
    with pytest.warns(EngineWarning, match="scan has other parameters now"):
        plan = kernels.plan(*arguments)
    assert plan.method == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernels.plan(*arguments)


def test_a_model_that_is_not_finite_is_no_fault_of_the_engine():
    model, params, state, x = fresh()
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    assert kernels.plan(model, broken, state, x).method == "structured"


def test_structured_tracing_inside_a_trace_leaves_nothing_behind():
    s = system("mlp")
    model = as_model(lambda params, x: plain_mlp(params, x))

    @jax.jit
    def inside(params, x):
        scale = jnp.sum(x) * 0 + 1
        closed = as_model(lambda p, inputs: plain_mlp(p, inputs) * scale)
        return kernels.empirical_ntk(closed, params, s.state, x).matrix

    expected = kernels.empirical_ntk(model, s.params, s.state, s.x).matrix
    for _, _ in itertools.product(range(2), range(1)):
        assert error(inside(s.params, s.x), expected) < 1e-6


# --- what is tested before an engine is used ----------------------------------------------------


def test_wide_numpy_parameters_are_tested_as_jax_computes_with_them():
    weights = {"w": np.random.default_rng(0).normal(size=(4, 3))}
    model = as_model(lambda p, x: x @ p["w"])
    params, state = model.split(weights)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    assert kernels.plan(model, params, state, x).method == "structured"


def test_a_broken_engine_is_found_out_without_the_checks_of_the_model(monkeypatch):
    monkeypatch.setattr(_decide, "disagreement", lambda *_: "It is broken.")
    model = as_model(lambda p, x: x @ p)
    params, state = model.split(jnp.ones((3, 2)))
    with pytest.warns(EngineWarning, match="It is broken"):
        plan = kernels.plan(model, params, state, jnp.ones((4, 3)), checked=True)
    assert plan.method == "reference"
