"""The engine that `method="auto"` chooses, on networks of every kind, against dense Jacobians."""

from __future__ import annotations

import fnmatch
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats._compat import x64
from ntkstats.errors import BudgetError, PrecisionError
from ntkstats.models import layer_names

from . import zoo
from .oracle import error, jacobian, kernel, widened

KEY = jax.random.key(3)
SYSTEMS = tuple(zoo.SYSTEMS)
# One for each way in which gradients end: plain, shared and transposed products, unknown
# operations, lookups, convolutions, batched products and scans.
VARIED = (
    "mlp",
    "shared",
    "tied_autoencoder",
    "weight_norm",
    "words",
    "cnn_strided",
    "experts",
    "scanned_plain",
)
FEW = ("words", "cnn_strided", "scanned_plain")
SOME = ("shared", *FEW)
# Their gradients end as those of the varied ones do.
ALIKE = tuple(name for name in SYSTEMS if name not in (*VARIED, *zoo.NARROW))


def on(names):
    """Run on systems, all tests of one after another: its Jacobian is computed only once."""
    return pytest.mark.parametrize("name", names, scope="module")


def planned(s, **options):
    """A plan without the check for interactions, which would take as long as the kernel."""
    return kernels.plan(*s.arguments, head=s.head, checked=True, **options)


@functools.cache
def plan(name, outputs="full"):
    key = KEY if outputs == "probe" else None
    return planned(zoo.system(name), outputs=outputs, key=key)


@functools.cache
def gram(name, outputs="full"):
    return plan(name, outputs).gram(*zoo.system(name).arguments[1:])


def signs(name, outputs):
    return plan(name, outputs).signs if outputs == "probe" else None


@functools.cache
def later(name):
    """The system at parameters a step away."""
    rng = np.random.default_rng(5)
    s = zoo.system(name)
    moved = [
        leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
        for leaf in jax.tree.leaves(s.params)
    ]
    return s._replace(params=jax.tree.unflatten(jax.tree.structure(s.params), moved))


@functools.cache
def dense_later(name):
    s = later(name)
    return jacobian(*s.arguments, s.head)


def others(x):
    """Three other samples; tokens and ends of edges stay what they are."""

    def changed(leaf):
        leaf = np.asarray(leaf)[[3, 0, 2]]
        return 0.1 - 0.7 * leaf if np.issubdtype(leaf.dtype, np.floating) else leaf[:, ::-1].copy()

    return jax.tree.map(changed, x)


def check_layer_traces(K, name):
    expected = {}
    names = layer_names(zoo.system(name).params)
    for (layer, _), leaf in zip(names, zoo.dense_leaves(name), strict=True):
        expected[layer] = expected.get(layer, 0.0) + np.sum(leaf**2)
    assert sorted(K.layer_traces) == sorted(expected)
    # A layer can be so small that its trace is all rounding beside the others.
    atol = 1e-7 * sum(expected.values())
    for layer, value in expected.items():
        np.testing.assert_allclose(
            K.layer_traces[layer], value, rtol=2e-5, atol=atol, err_msg=layer
        )


# --- the zoo ----------------------------------------------------------------------------------


@on(SYSTEMS)
def test_kernel_of_the_network_equals_dense_jacobians(name):
    """All in one test, for which the Jacobian, the slow part, is computed once."""
    check_every_parameter_matters(name)
    K = gram(name)
    assert plan(name).method == "structured"
    assert K.matrix.dtype == jnp.float32
    assert error(K.matrix, kernel(zoo.dense(name), "full")) <= 1e-5
    np.testing.assert_array_equal(K.matrix, K.matrix.T)
    check_layer_traces(K, name)
    if name != "weight_norm":
        coverage = plan(name).coverage
        assert coverage >= 0.95
    if name in VARIED:
        check_float64(name)


@pytest.mark.slow
@on(ALIKE)
def test_kernel_in_float64_equals_dense_jacobians(name):
    check_float64(name)


def check_every_parameter_matters(name):
    """A test network whose gradients vanish would not test anything."""
    s = zoo.system(name)
    sizes = {
        path: np.abs(leaf).max()
        for (_, path), leaf in zip(layer_names(s.params), zoo.dense_leaves(name), strict=True)
    }
    silent = {p for p in sizes for glob in zoo.SILENT[name] if fnmatch.fnmatchcase(p, glob)}
    largest = max(sizes.values())
    for path, size in sizes.items():
        if path in silent:
            assert size <= (1e-7 if name in zoo.NARROW else 1e-14) * largest, path
        else:
            assert 1e-4 * largest <= size < np.inf, path
    assert all(np.all(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(s.params))


def check_float64(name):
    s = zoo.system(name)
    with x64():
        wide = s._replace(**widened(dict(params=s.params, state=s.state, x=s.x)))
        K = planned(wide, wide=True).gram(*wide.arguments[1:])
    assert K.matrix.dtype == np.float64
    assert error(K.matrix, kernel(zoo.dense(name), "full")) <= 1e-10


@on(zoo.NARROW)
def test_networks_that_leave_float64_are_refused_there(name):
    s = zoo.system(name)
    with pytest.raises(PrecisionError, match="Remove the cast"):
        kernels.ntk_diagonal(*s.arguments, precision="float64")


def test_networks_of_the_zoo_are_contracted_in_every_way():
    """Which way is taken depends on sizes, so that a change of costs can leave one untested."""
    ways = set()
    for name in (*VARIED, "cnn_causal", "encoder"):
        for stream in plan(name).streams:
            engine = stream.engine
            ways |= {(engine.structure.leaves[c.leaf].rule, c.how) for c in engine.chosen}
    rules = ("product", "convolution", "lookup")
    assert ways >= {(rule, how) for rule in rules for how in ("factors", "rows")}
    assert ways >= {("dense", "gradient"), ("sum", "gradient")}


# --- other kernels ----------------------------------------------------------------------------


@on(VARIED)
def test_trace_kernel_equals_dense_jacobians(name):
    assert error(gram(name, "trace").matrix, kernel(zoo.dense(name), "trace")) <= 1e-5


@pytest.mark.parametrize("outputs", ["sum", "probe"])
@on(SOME)
def test_other_kernels_equal_dense_jacobians(name, outputs):
    expected = kernel(zoo.dense(name), outputs, signs(name, outputs))
    assert error(gram(name, outputs).matrix, expected) <= 1e-5


@on(VARIED)
def test_diagonals_are_the_squared_norms_of_the_leaves(name):
    s = zoo.system(name)
    got = planned(s, pairs=False).diagonal(*s.arguments[1:])
    expected = np.stack([np.sum(leaf**2, -1) for leaf in zoo.dense_leaves(name)])
    np.testing.assert_allclose(got, expected, rtol=5e-5, atol=1e-7 * expected.max())


def test_diagonal_door_gives_that_of_the_reduced_kernel():
    s = zoo.system("words")
    got = kernels.ntk_diagonal(*s.arguments, outputs="trace")
    np.testing.assert_allclose(got, np.diagonal(kernel(zoo.dense("words"), "trace")), rtol=2e-5)


@on(VARIED)
def test_cross_kernel_between_inputs_equals_dense_jacobians(name):
    s = zoo.system(name)
    s2 = s.on(others(s.x))
    left, right = planned(s, cross=s2.x), planned(s2, cross=s.x)
    K = left.cross(right, s.arguments[1:], s2.arguments[1:])
    expected = kernel(zoo.dense(name), "full", J2=jacobian(*s2.arguments, s2.head))
    assert error(K.matrix, expected) <= 1e-5


@on(SOME)
def test_cross_kernel_between_moments_equals_dense_jacobians(name):
    s, s2 = zoo.system(name), later(name)
    side = planned(s, outputs="trace", cross=s.x)
    K = side.cross(side, s.arguments[1:], s2.arguments[1:])
    expected = kernel(zoo.dense(name), "trace", J2=dense_later(name))
    assert error(K.matrix, expected) <= 1e-5


@on(FEW)
def test_weights_scale_rows_and_columns_by_their_roots(name):
    weight = np.array([0.5, 0.0, 2.0, 1.0, 3.0], np.float32)
    K = plan(name).gram(*zoo.system(name).arguments[1:], weight=jnp.asarray(weight))
    J = np.sqrt(weight, dtype=np.float64)[:, None, None] * zoo.dense(name)
    assert error(K.matrix, kernel(J, "full")) <= 1e-5
    np.testing.assert_allclose(sum(K.layer_traces.values()), np.sum(J**2), rtol=1e-5)


@on(FEW)
def test_given_cotangents_weigh_the_rows(name):
    s, J = zoo.system(name), zoo.dense(name)
    v = np.random.default_rng(6).normal(size=(len(J), 2, J.shape[1])).astype(np.float32)
    K = planned(s, outputs="given", n_rows=2).gram(*s.arguments[1:], cotangents=jnp.asarray(v))
    assert error(K.matrix, kernel(np.einsum("nrc,ncp->nrp", v, J), "full")) <= 1e-5


# --- small budgets ----------------------------------------------------------------------------


def in_tiles(s, tiling, **options):
    """The plan for the largest power of two that is not enough for all samples at once."""
    for exponent in range(24, 10, -1):
        tight = planned(s, budget_bytes=2**exponent, **options)
        if tiling(tight).samples < len(jax.tree.leaves(s.x)[0]):
            return tight
    raise AssertionError("no budget is too small")


@on(VARIED)
def test_a_small_budget_changes_only_rounding(name):
    s = zoo.system(name)
    K = in_tiles(s, lambda plan: plan.tiling).gram(*s.arguments[1:])
    assert error(K.matrix, kernel(zoo.dense(name), "full")) <= 1e-5
    np.testing.assert_array_equal(K.matrix, K.matrix.T)
    check_layer_traces(K, name)


@on(("mlp", "words"))
def test_the_least_budget_changes_only_rounding(name):
    """One row of one sample at a time, or nearly so."""
    s = zoo.system(name)
    for exponent in range(10, 24):
        try:
            least = planned(s, budget_bytes=2**exponent)
            break
        except BudgetError:
            continue
    assert least.tiling.samples <= 2
    K = least.gram(*s.arguments[1:])
    assert error(K.matrix, kernel(zoo.dense(name), "full")) <= 1e-5


@on(FEW)
def test_a_small_budget_changes_only_rounding_of_a_diagonal(name):
    s = zoo.system(name)
    tight = in_tiles(s, lambda plan: plan.diagonal_tiling, pairs=False)
    got = tight.diagonal(*s.arguments[1:]).sum(0).ravel()
    np.testing.assert_allclose(got, np.diagonal(kernel(zoo.dense(name), "full")), rtol=2e-5)


# --- transformations --------------------------------------------------------------------------


def members(name):
    """Parameters of two members, stacked, and the kernels of both."""
    params = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), zoo.system(name).params, later(name).params
    )
    return params, [kernel(J, "trace") for J in (zoo.dense(name), dense_later(name))]


@on(SOME)
def test_members_side_by_side_get_their_own_kernels(name):
    s = zoo.system(name)
    params, expected = members(name)
    K = jax.vmap(lambda p: plan(name, "trace").gram(p, s.state, s.x).matrix)(params)
    for got, wanted in zip(K, expected, strict=True):
        assert error(got, wanted) <= 1e-5


@on(SOME)
def test_kernels_inside_a_jitted_scan_are_those_outside(name):
    s = zoo.system(name)
    params, expected = members(name)
    prepared = plan(name, "trace")

    @jax.jit
    def run(params, state, x):
        def step(count, p):
            return count + 1, prepared.gram(p, state, x).matrix

        return jax.lax.scan(step, 0, params)

    count, K = run(params, s.state, s.x)
    assert int(count) == 2
    for got, wanted in zip(K, expected, strict=True):
        assert error(got, wanted) <= 1e-5


def test_doors_inside_a_trace_need_no_plan():
    s = zoo.system("words")
    K = jax.jit(lambda p: kernels.empirical_ntk(s.model, p, s.state, s.x, outputs="trace").matrix)(
        s.params
    )
    assert error(K, kernel(zoo.dense("words"), "trace")) <= 1e-5
