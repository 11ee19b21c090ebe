"""Kernels spread over devices, against dense Jacobians; and what is refused."""

from __future__ import annotations

import jax
import jaxtyping
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from ntkstats import errors, kernels
from ntkstats.kernels.sharded import _sharded
from ntkstats.models import Probe

from .networks import X, mlp_params, system
from .oracle import error
from .sharded_cases import CASES, FAST, SLOW, expected, expected_traces
from .sharded_cases import system as inputs
from .sharded_runs import on_one_process

NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return on_one_process(tmp_path_factory, "fast", devices=4)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return on_one_process(tmp_path_factory, "slow", devices=6)


@pytest.fixture
def written(name, request):
    return request.getfixturevalue("fast" if name in FAST else "slow")


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_kernel_equals_dense_jacobians(name, written):
    case, found = CASES[name], written.report["cases"][name]
    matrix, dense = written.arrays[name], expected(CASES[name])
    n, m = dense.shape
    assert found["dtype"] == case.precision or "float32"
    assert error(matrix[:n, :m], dense) < (1e-10 if case.precision else 1e-5)
    np.testing.assert_array_equal(matrix[n:], 0)
    np.testing.assert_array_equal(matrix[:, m:], 0)
    assert found["padding"] == len(matrix) - n
    assert matrix.shape[1] == (m if case.cross else len(matrix))
    np.testing.assert_allclose(found["trace"], np.trace(matrix), rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAST if FAST[name].cross is None])
def test_kernel_is_symmetric_to_rounding(name, fast):
    matrix = fast.arrays[name]
    np.testing.assert_allclose(
        matrix, matrix.T, atol=2 * np.finfo(matrix.dtype).eps * np.abs(matrix).max(), rtol=0
    )


@pytest.mark.parametrize("name", NAMES)
def test_layer_traces_are_those_of_the_layers_own_jacobians(name, written):
    traces, dense = written.report["cases"][name]["traces"], expected_traces(CASES[name])
    assert list(traces) == list(dense)
    for layer, value in dense.items():
        np.testing.assert_allclose(traces[layer], value, rtol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_kernel_says_how_it_was_computed(name, written):
    found, case = written.report["cases"][name], CASES[name]
    reference = case.method == "reference" or case.system == "nodes"
    assert found["method"] == ("reference" if reference else "structured")
    assert found["n_samples"] == len(jax.tree.leaves(inputs(case).x)[0])


def test_mesh_may_be_given_in_any_way(fast):
    dense = expected(CASES["mlp_multiple"])
    assert fast.report["ways"]
    for way in fast.report["ways"]:
        assert error(fast.arrays[way], dense) < 1e-5, way


# --- what lies where --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_device_has_its_own_rows_or_the_whole(name, written):
    case, (rows, columns) = CASES[name], written.arrays[name].shape
    if case.shard == "rows":
        assert rows % case.devices == 0
        rows //= case.devices
    assert written.report["cases"][name]["shards"] == [[rows, columns]] * case.devices


def test_only_tiles_and_blocks_travel_never_the_kernel(fast):
    traffic = fast.report["traffic"]
    assert traffic["names"] == ["collective-permute"]
    assert 0 < traffic["largest"] < traffic["own_rows"]


def test_spread_kernel_is_worked_with_as_any_other(fast):
    found, dense = fast.report["worked_with"], expected(CASES["mlp_multiple"])
    np.testing.assert_allclose(found["trace"], np.trace(dense), rtol=1e-5)
    np.testing.assert_allclose(found["top"], np.linalg.eigvalsh(dense)[:-4:-1], rtol=1e-4)
    np.testing.assert_allclose(found["product"], dense.sum(1), rtol=1e-4)
    assert found["product_on"] == 4


def test_devices_of_one_memory_share_the_default_budget(fast):
    assert fast.report["sharing_memory"] == [1, 3]


# --- one device -------------------------------------------------------------------------------


def one(*names):
    """A mesh of one device."""
    shape = (1,) * len(names)
    return Mesh(np.array(jax.devices()[:1]).reshape(shape), names)


@pytest.mark.parametrize("shard", ["rows", "parameters"])
def test_one_device_gives_what_no_mesh_gives(shard):
    s = system("mlp")
    alone = kernels.empirical_ntk(*s.arguments)
    spread = kernels.empirical_ntk(*s.arguments, mesh=one("rows"), shard=shard)
    assert error(spread.matrix, alone.matrix) < 1e-6
    assert spread.padding == 0
    for layer, value in alone.layer_traces.items():
        np.testing.assert_allclose(spread.layer_traces[layer], value, rtol=1e-6)


def test_arrays_of_a_mesh_of_one_device_are_taken():
    s = system("mlp")
    mesh = jax.make_mesh((1,), ("rows",))
    x = jax.device_put(s.x, NamedSharding(mesh, PartitionSpec("rows")))
    params = jax.device_put(s.params, NamedSharding(mesh, PartitionSpec()))
    spread = kernels.empirical_ntk(s.model, params, s.state, x, mesh=mesh)
    assert error(spread.matrix, kernels.empirical_ntk(*s.arguments).matrix) < 1e-6


def test_other_parameters_compile_nothing_again():
    s = system("mlp")
    kernels.empirical_ntk(*s.arguments, mesh=one("rows"))
    before = _sharded._by_rows._cache_size()
    moved = jax.tree.map(lambda p: 2 * p, s.params)
    kernels.empirical_ntk(s.model, moved, s.state, s.x, mesh=one("rows"))
    assert _sharded._by_rows._cache_size() == before


# --- bad input --------------------------------------------------------------------------------


MESH = {"mesh": one("rows")}
TWO = {"mesh": one("a", "b")}
BAD = [
    ({"mesh": 4}, errors.KernelError, "mesh is a int"),
    ({"mesh": jax.devices()}, errors.KernelError, "mesh is a list"),
    ({"mesh": AbstractMesh((1,), ("rows",))}, errors.KernelError, "mesh is a AbstractMesh"),
    ({"mesh_axis": "rows"}, errors.KernelError, "mesh is a NoneType"),
    (TWO, errors.KernelError, "Pass mesh_axis="),
    (MESH | {"mesh_axis": "columns"}, errors.KernelError, "has the axes ('rows',)"),
    (TWO | {"mesh_axis": "c"}, errors.KernelError, "has the axes ('a', 'b')"),
    (MESH | {"shard": "columns"}, errors.KernelError, "('rows', 'parameters')"),
    (MESH | {"method": "magic"}, errors.KernelError, "'reference'"),
    (MESH | {"outputs": "class"}, errors.KernelError, "expected one of ('full', 'trace'"),
    (MESH | {"outputs": "probe"}, errors.KernelError, "jax.random.key"),
    (MESH | {"head": "critic"}, errors.HeadError, "'output'"),
    (MESH | {"budget_bytes": 0}, errors.KernelError, "at least 1"),
    (MESH | {"budget_bytes": 100}, errors.BudgetError, "Raise budget_bytes"),
    (MESH | {"precision": "float16"}, errors.PrecisionError, "'float64'"),
    (MESH | {"model": lambda p, x: x}, errors.ModelError, "as_model"),
    (MESH | {"params": []}, errors.ParamsError, "at least one"),
    (MESH | {"probe": X[:, :3]}, errors.ProbeError, "(6, 3)"),
    (MESH | {"probe": X[:0]}, errors.ProbeError, "0 samples"),
    (MESH | {"probe": np.where(X > 1, np.nan, X)}, errors.ProbeError, "finite"),
    (MESH | {"probe": {"a": X, "b": X[:2]}}, errors.ProbeError, "differ"),
    (MESH | {"cross": X[:, :3]}, errors.ProbeError, "(6, 3)"),
    (MESH | {"cross_params": mlp_params((4, 5, 3))}, errors.ParamsError, "differ in shape"),
]


@pytest.fixture
def without_type_checker():
    """What users meet: the suite's own type checker would be first otherwise."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def call(**changes):
    s = system("mlp")
    names = ("model", "params", "state", "probe")
    arguments = dict(zip(names, s.arguments, strict=True)) | changes
    first = [arguments.pop(name) for name in names]
    return kernels.empirical_ntk(*first, **arguments)


@pytest.mark.usefixtures("without_type_checker")
@pytest.mark.parametrize(("changes", "kind", "message"), BAD)
def test_bad_input_is_refused_with_a_clear_error(changes, kind, message):
    with pytest.raises(kind) as caught:
        call(**changes)
    assert message in str(caught.value)


def test_samples_that_interact_cannot_be_spread():
    s = system("graph")
    with pytest.raises(errors.KernelError, match="shard='parameters'"):
        kernels.empirical_ntk(*s.arguments, **MESH)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_mesh_inside_a_trace_is_refused(transform):
    s = system("mlp")

    def traced(scale):
        params = jax.tree.map(lambda p: p * scale, s.params)
        return kernels.empirical_ntk(s.model, params, s.state, s.x, **MESH).matrix

    with pytest.raises(errors.KernelError, match="Call it outside"):
        transform(traced)(np.ones(1, np.float32))


def test_good_arguments_pass():
    call(**MESH, probe=Probe(X, weight=np.arange(6.0)), cross=X[:2], mesh_axis="rows")
    call(**TWO, mesh_axis="b")
