"""A plan is made once on the host and then works under every transformation."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.errors import CoupledSamplesError, KernelError
from ntkstats.kernels import _plan
from ntkstats.models import Probe, as_model

from ..models.cases import plain_mlp
from .networks import X, mlp_params, retiled, system
from .oracle import error

KEY = jax.random.key(1)


def counting_model():
    """A network that counts how often it is traced or run."""
    calls = []

    def apply(params, x):
        calls.append(x.shape)
        return plain_mlp(params, x)

    return as_model(apply), calls


MEMBERS = [mlp_params(seed=seed) for seed in range(3)]
STACKED = jax.tree.map(lambda *leaves: jnp.stack(leaves), *MEMBERS)


def prepared(outputs="trace", **options):
    s = system("mlp")
    return kernels.plan(*s.arguments, outputs=outputs, key=KEY, **options)


def of_member(plan, member):
    return plan.gram(MEMBERS[member], system("mlp").state, X)


# --- transformations --------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", ["trace", "probe"])
def test_plan_works_under_vmap_over_members(outputs):
    plan = prepared(outputs, lanes=3)
    K = jax.vmap(lambda p: plan.gram(p, system("mlp").state, X))(STACKED)
    assert K.outputs == outputs
    for member in range(3):
        alone = of_member(plan, member)
        assert error(K.matrix[member], alone.matrix) < 1e-6
        for layer, value in alone.layer_traces.items():
            np.testing.assert_allclose(K.layer_traces[layer][member], value, rtol=1e-5)


def test_tiled_plan_works_under_vmap_over_members():
    plan = prepared("full", lanes=3, budget_bytes=15_000)
    assert plan.tiling.samples < len(X)
    K = jax.vmap(lambda p: plan.gram(p, system("mlp").state, X).matrix)(STACKED)
    assert error(K[2], of_member(prepared("full"), 2).matrix) < 1e-6


def test_unrolled_plan_works_under_vmap_over_members():
    s = system("cnn")
    plan = kernels.plan(*s.arguments, outputs="trace")
    plan = retiled(plan, plan.tiling._replace(samples=4))
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), s.params)
    K = jax.vmap(lambda p: plan.gram(p, s.state, s.x).matrix)(two)
    twice = jax.tree.map(lambda leaf: 2 * leaf, s.params)
    assert error(K[0], plan.gram(*s.arguments[1:]).matrix) < 1e-6
    assert error(K[1], plan.gram(twice, s.state, s.x).matrix) < 1e-6


def test_plan_works_under_jit_and_scan():
    plan = prepared()
    state = system("mlp").state

    @jax.jit
    def traces(stacked):
        return jax.lax.scan(lambda c, p: (c, plan.gram(p, state, X).trace), 0, stacked)[1]

    expected = [of_member(plan, member).trace for member in range(3)]
    np.testing.assert_allclose(traces(STACKED), expected, rtol=1e-6)


def test_diagonal_and_cross_work_under_vmap():
    plan = prepared(cross=X)
    state = system("mlp").state

    def both(p):
        side = (p, state, X)
        return plan.diagonal(*side).sum((0, 2)), plan.cross(plan, side, side).matrix

    diagonal, cross = jax.vmap(both)(STACKED)
    K = of_member(prepared(), 1).matrix
    np.testing.assert_allclose(diagonal[1], K.diagonal(), rtol=1e-5)
    assert error(cross[1], K) < 1e-6


def test_kernel_can_be_differentiated_in_the_inputs_and_parameters():
    plan = prepared()
    state = system("mlp").state
    trace = lambda p: plan.diagonal(p, state, X).sum()  # noqa: E731
    params = MEMBERS[0]
    step = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    moved = [jax.tree.map(lambda p, d, e=e: p + e * d, params, step) for e in (1e-2, -1e-2)]
    numeric = (trace(moved[0]) - trace(moved[1])) / 2e-2
    exact = jax.jvp(trace, (params,), (step,))[1]
    np.testing.assert_allclose(numeric, exact, rtol=1e-2)


def test_doors_work_inside_a_trace():
    s = system("mlp")
    jitted = jax.jit(
        lambda p, x: (
            kernels.empirical_ntk(s.model, p, s.state, x).matrix,
            kernels.ntk_diagonal(s.model, p, s.state, x),
            kernels.ntk_trace(s.model, p, s.state, x).value,
        )
    )
    matrix, diagonal, trace = jitted(s.params, s.x)
    assert error(matrix, kernels.empirical_ntk(*s.arguments).matrix) < 1e-6
    np.testing.assert_allclose(diagonal, matrix.diagonal(), rtol=1e-5)
    np.testing.assert_allclose(trace, matrix.trace(), rtol=1e-5)


def test_a_probe_may_be_closed_over_by_a_trace():
    s = system("mlp")
    probe = Probe(s.x, weight=np.arange(6.0))
    K = jax.jit(lambda p: kernels.empirical_ntk(s.model, p, s.state, probe).matrix)(s.params)
    assert error(K, kernels.empirical_ntk(s.model, s.params, s.state, probe).matrix) < 1e-6


# --- once -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "door",
    [
        lambda *a: kernels.empirical_ntk(*a, outputs="trace"),
        lambda *a: kernels.empirical_ntk(*a, outputs="probe", key=KEY),
        lambda *a: kernels.empirical_ntk(*a, cross=X[:2]),
        lambda *a: kernels.empirical_ntk(*a, outputs="sum", precision="float64"),
        lambda *a: kernels.ntk_diagonal(*a),
        lambda *a: kernels.ntk_trace(*a, estimator="rademacher", seed=3),
    ],
    ids=["gram", "probe", "cross", "float64", "diagonal", "trace"],
)
def test_a_second_call_neither_traces_nor_runs_the_model(door):
    model, calls = counting_model()
    params, state = model.split(MEMBERS[0])
    door(model, params, state, X)
    assert calls
    first = list(calls)
    again = door(model, *model.split(MEMBERS[1]), X)
    assert calls == first
    assert np.isfinite(np.asarray(jax.tree.leaves(again)[0])).all()


def test_other_shapes_are_planned_anew():
    model, calls = counting_model()
    params, state = model.split(MEMBERS[0])
    a = kernels.empirical_ntk(model, params, state, X)
    before = len(calls)
    b = kernels.empirical_ntk(model, params, state, X[:4])
    assert len(calls) > before
    assert error(b.matrix, np.asarray(a.matrix)[:12, :12]) < 1e-6


def test_a_refused_model_is_refused_again():
    model = as_model(lambda p, x: (x - x.mean(0)) @ p)
    params, state = model.split(jnp.ones((4, 2)))
    for _ in range(2):
        with pytest.raises(CoupledSamplesError):
            kernels.empirical_ntk(model, params, state, X)


def test_what_was_not_checked_in_a_trace_is_checked_outside():
    model = as_model(lambda p, x: (x - x.mean(0)) @ p)
    params, state = model.split(jnp.ones((4, 2)))
    jax.jit(lambda p: kernels.ntk_diagonal(model, p, state, X))(params)
    with pytest.raises(CoupledSamplesError):
        kernels.ntk_diagonal(model, params, state, X)


def test_decisions_do_not_keep_models_alive():
    model = as_model(lambda p, x: x @ p)
    params, state = model.split(jnp.ones((4, 2)))
    kernels.plan(model, params, state, X)
    assert model in _plan._DECISIONS
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


# --- what a plan says -------------------------------------------------------------------------


def test_signs_come_from_the_key():
    one, same = prepared("probe"), prepared("probe")
    other = kernels.plan(*system("mlp").arguments, outputs="probe", key=jax.random.key(2))
    assert one.signs.shape == (8, 3)
    np.testing.assert_array_equal(one.signs, same.signs)
    assert (one.signs != other.signs).any()
    assert prepared("trace").signs is None


def test_plan_prints_what_it_decided():
    text = str(prepared("trace", budget_bytes=2**20))
    for part in ("trace kernel", "N=6", "C=3", "6 x 6", "1 x 1 tile", "budget 1 MiB"):
        assert part in text
    assert "method structured" in str(prepared(pairs=False))
    assert "method reference" in str(prepared(method="reference"))


def test_plan_prints_a_row_for_every_parameter_array():
    plan = prepared()
    header, *rows, coverage = str(plan).splitlines()[1:]
    assert header.split()[:3] == ["parameters", "shape", "rule"]
    assert len(rows) == len(jax.tree.leaves(system("mlp").params))
    assert all("product" in row or "sum" in row for row in rows)
    assert coverage == "coverage 100.0 % of the parameters"
    assert plan.coverage == 1.0
    assert plan.summary == str(plan).splitlines()[0]


def test_auto_takes_the_structured_engine_where_samples_do_not_interact():
    assert prepared().method == "structured"
    assert kernels.plan(*system("graph").arguments).method == "reference"
    with pytest.raises(KernelError, match="samples interact"):
        kernels.plan(*system("graph").arguments, method="structured")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda p, s: prepared(pairs=False).gram(p, s, X), "pairs=True"),
        (lambda p, s: prepared().gram(p, s, X[:3]), "x has 3 samples; expected 6"),
        (lambda p, s: prepared().diagonal(p, s, np.resize(X, (9, 4))), "x has 9 samples"),
        (lambda p, s: prepared().gram(p, s, X, weight=jnp.ones(5)), r"expected \(6,\)"),
        (lambda p, s: prepared("given").gram(p, s, X), "cotangents of shape None"),
        (
            lambda p, s: prepared("given", n_rows=2).gram(p, s, X, cotangents=jnp.ones((6, 1, 3))),
            r"expected \(6, 2, 3\)",
        ),
        (
            lambda p, s: prepared().cross(prepared("sum"), (p, s, X), (p, s, X)),
            "the same on both",
        ),
    ],
)
def test_a_plan_refuses_what_it_was_not_made_for(use, message):
    with pytest.raises(KernelError, match=message):
        use(MEMBERS[0], system("mlp").state)


def test_given_cotangents_weigh_the_rows():
    plan = prepared("given", n_rows=2)
    v = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 3)), jnp.float32)
    K = plan.gram(MEMBERS[0], system("mlp").state, X, cotangents=v).matrix
    full = np.asarray(of_member(prepared("full"), 0).matrix).reshape(6, 3, 6, 3)
    expected = np.einsum("nrc,ncme,mse->nrms", v, full, v).reshape(12, 12)
    assert error(K, expected) < 1e-5
