"""Any tiling gives the same kernel, and the tiling that is chosen fits its budget."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkstats import kernels
from ntkstats.errors import BudgetError
from ntkstats.kernels._tiles import Cut, Tiling, count
from ntkstats.kernels._tiling import (
    Footprint,
    Room,
    choose_tiling,
    default_budget,
    footprint,
    tile_bytes,
    with_unrolling,
)
from ntkstats.kernels._types import Task
from ntkstats.models import as_model

from ..models.cases import plain_mlp
from .networks import mlp_params, retiled, system
from .oracle import error

KEY = jax.random.key(5)
N, C = 7, 3  # a prime number of samples: no tile divides it
INPUTS = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
TILES = [(1, 1), (1, 3), (2, 2), (4, 1), (5, 3), (7, 2)]


@functools.cache
def planned(outputs, method):
    s = system("mlp").on(INPUTS)
    return kernels.plan(*s.arguments, outputs=outputs, key=KEY, draws=3, n_rows=3, method=method)


@functools.cache
def computed(outputs, samples=N, rows=C, unroll=True, method="structured"):
    s = system("mlp")
    plan = retiled(planned(outputs, method), Tiling(samples, rows, unroll))
    cotangents = jnp.asarray(np.random.default_rng(1).normal(size=(N, 3, C)), jnp.float32)
    return plan.gram(
        s.params, s.state, INPUTS, cotangents=cotangents if outputs == "given" else None
    )


# --- any tiling -------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("outputs", ["full", "trace", "probe"])
def test_kernel_does_not_depend_on_the_tiles(outputs, tile):
    whole, tiled = computed(outputs), computed(outputs, *tile, unroll=False)
    assert error(tiled.matrix, whole.matrix) < 1e-6
    np.testing.assert_array_equal(tiled.matrix, tiled.matrix.T)
    for layer, value in whole.layer_traces.items():
        np.testing.assert_allclose(tiled.layer_traces[layer], value, rtol=1e-5)


@pytest.mark.parametrize(("outputs", "tile"), [("sum", (2, 1)), ("given", (3, 2))])
def test_other_cotangents_do_not_depend_on_the_tiles(outputs, tile):
    rows = 1 if outputs == "sum" else 3
    assert (
        error(computed(outputs, *tile, unroll=False).matrix, computed(outputs, N, rows).matrix)
        < 1e-6
    )


def test_unrolled_loops_give_what_rolled_ones_give():
    s = system("cnn")
    plan = kernels.plan(*s.arguments, outputs="trace")
    assert plan.tiling.unroll
    K = [retiled(plan, Tiling(4, 2, unroll)).gram(*s.arguments[1:]) for unroll in (True, False)]
    assert error(K[0].matrix, K[1].matrix) < 1e-6
    for layer, value in K[0].layer_traces.items():
        np.testing.assert_allclose(K[1].layer_traces[layer], value, rtol=1e-5)


def test_one_sample_has_a_kernel_too():
    s = system("mlp")
    whole = np.asarray(kernels.empirical_ntk(*s.arguments).matrix)
    one = kernels.empirical_ntk(*s.on(s.x[:1]).arguments)
    assert one.matrix.shape == (C, C)
    assert error(one.matrix, whole[:C, :C]) < 1e-6
    model = as_model(lambda p, x: x @ p)
    params, state = model.split(jnp.ones(4))
    single = kernels.empirical_ntk(model, params, state, s.x[:1], outputs="trace")
    np.testing.assert_allclose(single.matrix, [[np.sum(s.x[0] ** 2)]], rtol=1e-6)


def test_a_budget_that_splits_cotangents_changes_only_rounding():
    model = as_model(plain_mlp)
    params, state = model.split(mlp_params((4, 40, 40, 6)))
    x = INPUTS[:5]
    whole = kernels.empirical_ntk(model, params, state, x)
    plan = kernels.plan(model, params, state, x, budget_bytes=60_000, method="reference")
    assert plan.tiling.samples == 1
    assert 1 <= plan.tiling.rows < 6
    assert error(plan.gram(params, state, x).matrix, whole.matrix) < 1e-6


@given(total=st.integers(1, 12), tile=st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_tiles_cover_every_entry_exactly_once(total, tile):
    cut = Cut(total, min(tile, total))
    seen = np.zeros(total, int)
    for i in range(cut.tiles):
        index, new = map(np.asarray, cut.entries(i))
        assert index[0] == cut.start(i) == int(cut.start(jnp.asarray(i)))
        seen[index] += new
    np.testing.assert_array_equal(seen, 1)


# --- the tiling that is chosen ----------------------------------------------------------------


def task_of(outputs, n, c):
    return Task(outputs, "output", n, c, 1 if outputs == "sum" else c)


footprints = st.builds(
    Footprint,
    row=st.integers(4, 10**6),
    widths=st.lists(st.integers(1, 10**5), min_size=1, max_size=4).map(tuple),
    entry=st.sampled_from([4, 8]),
    forward=st.integers(0, 10**6),
    backward=st.integers(0, 10**6),
    scratch=st.integers(0, 10**6),
    formed=st.integers(0, 10**6),
    piece=st.integers(0, 10**7),
)
rooms = st.builds(
    Room,
    budget_bytes=st.integers(1, 10**9),
    lanes=st.integers(1, 5),
    result_bytes=st.integers(0, 10**6),
    tiles=st.integers(1, 2),
    copies=st.integers(0, 1),
    sides=st.integers(1, 2),
)
tasks = st.builds(
    task_of,
    st.sampled_from(["full", "trace", "sum", "probe"]),
    st.integers(1, 300),
    st.integers(1, 12),
)


def one_tile_less(total, tile):
    """The smallest tile that covers the axis in fewer steps."""
    return count(total, count(total, tile) - 1)


@given(task=tasks, need=footprints, room=rooms)
@settings(deadline=None, max_examples=300)
def test_chosen_tiles_fit_the_budget_and_bigger_ones_would_not(task, need, room):
    model = system("mlp").model
    available = (room.budget_bytes // room.lanes - room.result_bytes) // room.sides

    def size(samples, rows):
        whole = (samples, rows) == (task.n_samples, task.n_rows)
        held = room._replace(tiles=1) if whole else room
        return tile_bytes(model, task, need, held, samples, rows)

    try:
        samples, rows, _ = choose_tiling(model, task, need, room)
    except BudgetError:
        assert size(1, 1) > available
        return
    assert size(samples, rows) <= available
    if rows < task.n_rows:
        assert samples == 1
        assert size(1, one_tile_less(task.n_rows, rows)) > available
    elif samples < task.n_samples:
        assert size(one_tile_less(task.n_samples, samples), rows) > available


@given(task=tasks, need=footprints, lanes=st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_a_budget_error_names_a_budget_that_works(task, need, lanes):
    room = Room(1, lanes, 1000, tiles=2, copies=1)
    model = system("mlp").model
    with pytest.raises(BudgetError, match="Raise budget_bytes") as caught:
        choose_tiling(model, task, need, room)
    least = int(str(caught.value).split(" need ")[1].split(". ")[0].replace(",", ""))
    choose_tiling(model, task, need, room._replace(budget_bytes=least))
    single = task.n_samples == task.n_rows == 1  # it has no second tile, so it needs less
    if not single:
        with pytest.raises(BudgetError):
            choose_tiling(model, task, need, room._replace(budget_bytes=least - lanes))


def test_lanes_share_the_budget():
    s = system("mlp").on(np.resize(INPUTS, (64, 4)))
    alone = kernels.plan(*s.arguments, outputs="trace", budget_bytes=50_000)
    shared = kernels.plan(*s.arguments, outputs="trace", budget_bytes=150_000, lanes=3)
    assert alone.tiling == shared.tiling
    assert alone.tiling.samples < 64


def test_a_larger_budget_never_gives_smaller_tiles():
    s = system("mlp").on(np.resize(INPUTS, (64, 4)))
    sizes = [
        kernels.plan(*s.arguments, outputs="trace", budget_bytes=budget).tiling.samples
        for budget in (30_000, 60_000, 120_000, 10**6, 10**9)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 64


def test_diagonals_need_no_room_for_the_matrix():
    s = system("mlp").on(np.resize(INPUTS, (200, 4)))
    with pytest.raises(BudgetError):
        kernels.plan(*s.arguments, budget_bytes=40_000)
    plan = kernels.plan(*s.arguments, budget_bytes=40_000, pairs=False)
    assert plan.tiling is None
    assert plan.diagonal_tiling.samples < 200


@pytest.mark.parametrize(("total", "expected"), [(2, 1), (6, 3), (8, 4), (64, 4)])
def test_default_budget_is_half_of_the_memory_and_at_most_4_gib_on_cpu(
    monkeypatch, total, expected
):
    monkeypatch.setattr("ntkstats.kernels._tiling.device_bytes", lambda: total * 2**30)
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert default_budget() == expected * 2**30


def test_only_convolutions_are_unrolled_and_only_a_few_tiles():
    for name, expected in (("cnn", True), ("mlp", False)):
        s = system(name)
        task = task_of("full", 100, 3)
        few = with_unrolling(Tiling(20, 3), task, s.model, s.arguments[1:])
        many = with_unrolling(Tiling(1, 3), task, s.model, s.arguments[1:])
        assert (few.unroll, many.unroll) == (expected, False)


# --- footprints and compiled programs ---------------------------------------------------------


def test_footprint_of_a_linear_layer_is_counted_by_hand():
    model = as_model(lambda p, x: x @ p["w"] + p["b"])
    params = {"w": jnp.ones((5, 3)), "b": jnp.ones(3, jnp.bfloat16)}
    x = np.ones((4, 5), np.float32)
    params, state = model.split(params)
    need = footprint(model, task_of("full", 4, 3), params, state, x)
    assert need.row == 4 * (15 + 3)
    assert need.widths == (3, 15)
    assert need.entry == 4
    # Outputs twice on the way forward; back, the cotangent in the shape of the output; and the
    # rows of the half-precision bias beside their float32 copies.
    assert 4 * 3 <= need.forward <= 4 * 3 * 4
    assert 2 * 3 <= need.backward <= 4 * (15 + 3 * 3) + 2 * 3


def test_footprint_counts_what_the_pullback_keeps():
    """Hidden activations of 1000 numbers a layer are kept, once for each layer."""
    model = as_model(plain_mlp)

    def kept(layers):
        params, state = model.split(mlp_params((4, *[1000] * layers, 2)))
        return footprint(model, task_of("full", 3, 2), params, state, INPUTS[:3])

    need = [kept(layers) for layers in (1, 2, 3)]
    growth = np.diff([n.forward for n in need])
    np.testing.assert_array_equal(growth, growth[0])
    assert 4000 <= growth[0] <= 4 * 4000
    # Cotangents of one layer are gone before those of the next are needed.
    assert need[2].backward == need[1].backward
