"""Collectors inside loops on the device give what a recorder outside gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import ntkstats as nts
from ntkstats.attach._gate import only_if
from ntkstats.errors import RecordingError
from tests.attach.watched import (
    AT,
    COLLECTORS,
    DUE,
    MODEL,
    MODULE,
    PROBE,
    STEPS,
    check_equal,
    loss_of,
    make_watch,
    outside,
    scanned,
    start,
)

# --- scan and vmap ----------------------------------------------------------------------------


def test_a_scan_records_what_a_loop_outside_records():
    expected, last = outside(jax.random.key(1))
    watch = make_watch()
    params, watched = jax.jit(lambda key: scanned(watch, key))(jax.random.key(1))
    records, steps = watch.results(watched)
    assert steps.tolist() == DUE
    check_equal(records, expected)
    check_equal(dict(enumerate(jax.tree.leaves(params))), dict(enumerate(jax.tree.leaves(last))))


def test_seeds_side_by_side_record_what_each_records_alone():
    watch = make_watch()
    keys = jax.random.split(jax.random.key(2), 3)
    _, watched = jax.jit(jax.vmap(lambda key: scanned(watch, key)))(keys)
    records, steps = watch.results(watched)
    assert steps.tolist() == DUE
    for k, key in enumerate(keys):
        check_equal({name: value[k] for name, value in records.items()}, outside(key)[0])


def test_a_loop_that_ends_early_gives_the_records_it_has():
    watch = make_watch()
    watched = watch.measure_if(watch.init(), 5, start(jax.random.key(0)))
    records, steps = watch.results(watched)
    assert steps.tolist() == [5]
    assert all(len(value) == 1 for value in records.values())


def test_records_of_members_go_into_one_run(tmp_path):
    watch = make_watch()
    keys = jax.random.split(jax.random.key(2), 3)
    firsts = jax.vmap(start)(keys)
    params, watched = jax.jit(jax.vmap(lambda key: scanned(watch, key)))(keys)
    recorder = nts.Recorder(tmp_path / "run", MODEL, PROBE, COLLECTORS, at=AT, members=3)
    recorder.bind(firsts)
    recorder.extend(*watch.results(watched))
    report = recorder.finish(params, step=STEPS)
    assert (report.records, report.failures) == (4, 0)
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [*DUE, STEPS]
    np.testing.assert_allclose(
        ds.entropy.transpose("member", "step").values[:, :3], watch.results(watched)[0]["entropy"]
    )
    assert (ds.param_distance.isel(step=0) == 0).all()


# --- the gate ---------------------------------------------------------------------------------


def counted():
    """A gated addition and the list of what was computed."""
    calls = []

    def add(held, amount):
        jax.debug.callback(lambda a: calls.append(float(a)), amount)
        return held + amount

    return only_if(add), calls


def test_nothing_is_computed_while_no_lane_is_due():
    gated, calls = counted()

    def run(offset):
        # Carried along, so that the condition differs between lanes as far as vmap can tell.
        def step(carry, _):
            count, held = carry
            return (count + 1, gated(count % 10 == 0, held, 1.0 * count)), None

        return jax.lax.scan(step, (offset, 0.0), None, length=20)[0][1]

    together = jax.jit(jax.vmap(run))(jnp.zeros(4, int))
    jax.effects_barrier()
    assert together.tolist() == [10.0] * 4
    assert sorted(calls) == [0.0] * 4 + [10.0] * 4


def test_only_lanes_that_are_due_are_computed():
    gated, calls = counted()
    due = jnp.array([True, False, False, True])
    amounts = jnp.arange(4.0)
    held = jax.jit(jax.vmap(gated))(due, jnp.zeros(4), amounts)
    jax.effects_barrier()
    assert held.tolist() == [0.0, 0.0, 0.0, 3.0]
    assert sorted(calls) == [0.0, 3.0]


def test_vmap_within_vmap_computes_no_more():
    gated, calls = counted()
    due = jnp.array([[True, False, False], [False, False, False]])
    amounts = jnp.arange(6.0).reshape(2, 3) + 1
    held = jax.jit(jax.vmap(jax.vmap(gated)))(due, jnp.zeros((2, 3)), amounts)
    jax.effects_barrier()
    assert held.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert calls == [1.0]


def test_what_all_lanes_share_needs_no_axis():
    gated, _ = counted()
    held = jax.vmap(gated, in_axes=(None, 0, None))(True, jnp.zeros(3), 2.0)
    assert held.tolist() == [2.0] * 3


# --- optax ------------------------------------------------------------------------------------


def train_state(watch, key, **options):
    tx = optax.chain(nts.as_optax(watch, **options), optax.sgd(0.5))
    state = TrainState.create(apply_fn=MODULE.apply, params=start(key), tx=tx)
    return state.replace(step=jnp.zeros((), int))  # flax starts with a Python integer


def applied(state, i):
    return state.apply_gradients(grads=jax.grad(loss_of)(state.params, i))


def test_an_optimiser_in_a_train_state_records_and_changes_nothing():
    expected, last = outside(jax.random.key(1))
    watch = make_watch()
    state = train_state(watch, jax.random.key(1))
    step = jax.jit(applied)
    for i in range(STEPS):
        state = step(state, i)
    records, steps = watch.results(state)
    assert steps.tolist() == DUE
    check_equal(records, expected)
    check_equal(
        dict(enumerate(jax.tree.leaves(state.params))), dict(enumerate(jax.tree.leaves(last)))
    )
    assert step._cache_size() == 1


def test_an_optimiser_in_a_scan_under_vmap():
    watch = make_watch()

    def train(key):
        def step(state, i):
            return applied(state, i), None

        return jax.lax.scan(step, train_state(watch, key), jnp.arange(STEPS))[0].opt_state

    keys = jax.random.split(jax.random.key(2), 2)
    records, steps = watch.results(jax.jit(jax.vmap(train))(keys))
    assert steps.tolist() == DUE
    for k, key in enumerate(keys):
        check_equal({name: value[k] for name, value in records.items()}, outside(key)[0])


def test_several_updates_can_be_one_step():
    watch = make_watch()
    tx = nts.as_optax(watch, updates_per_step=2)
    params = start(jax.random.key(0))
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(STEPS):
        updates, state = update(params, state, params)
        assert jax.tree.all(jax.tree.map(jnp.array_equal, updates, params))
        params = jax.tree.map(lambda p: p + 1, params)
    records, steps = watch.results(state)
    assert steps.tolist() == [0, 5]
    assert records["param_distance"][0] == 0 < records["param_distance"][1]


def test_parameters_and_extras_are_passed_on():
    program = nts.collectors.bind(
        nts.as_model(lambda w, x: x @ w["a"]),
        {"a": jnp.ones((5, 2))},
        PROBE,
        nts.collectors.param_norm(),
    )
    model = nts.as_model(lambda w, x: x @ w["a"])
    watch = nts.watch(program, model, AT, until=3)
    tx = nts.as_optax(watch, obj_of=lambda params: {"a": params})
    w = jnp.full((5, 2), 2.0)
    _, state = tx.update(w, tx.init(w), w, value=jnp.zeros(()))
    assert watch.results(state)[0]["param_norm"].tolist() == pytest.approx([40**0.5])


# --- bad input --------------------------------------------------------------------------------


def test_an_optimiser_without_parameters_says_so():
    tx = nts.as_optax(make_watch())
    params = start(jax.random.key(0))
    with pytest.raises(RecordingError, match=r"tx.update\(grads, opt_state, params\)"):
        tx.update(params, tx.init(params))


def ensemble_program():
    params = jax.vmap(start)(jax.random.split(jax.random.key(0), 2))
    return nts.collectors.bind(MODEL, params, PROBE, COLLECTORS, members=2)


def wide_program():
    params = start(jax.random.key(0))
    return nts.collectors.bind(MODEL, params, PROBE, COLLECTORS, precision="float64")


@pytest.mark.parametrize(
    ("make", "at", "message"),
    [
        (ensemble_program, AT, "vmap the loop"),
        (wide_program, AT, "expected float32"),
        (lambda: make_watch().program, nts.RecordAt.steps([20]), "no step up to until=12"),
    ],
)
def test_what_cannot_be_watched_is_refused(make, at, message):
    with pytest.raises(RecordingError, match=message):
        nts.watch(make(), MODEL, at, until=STEPS)


def test_where_there_is_nothing_to_find():
    watch = make_watch()
    with pytest.raises(RecordingError, match="0 watched states"):
        watch.results(optax.adam(0.1).init(start(jax.random.key(0))))
    with pytest.raises(RecordingError, match="2 watched states"):
        watch.results([watch.init(), watch.init()])


def test_seeds_that_recorded_different_steps_are_refused():
    watch = make_watch()
    params = start(jax.random.key(0))
    each = [watch.measure_if(watch.init(), step, params) for step in (0, 5)]
    with pytest.raises(RecordingError, match="different steps"):
        watch.results(jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))


def test_a_step_must_be_one_or_more_updates():
    with pytest.raises(RecordingError, match="updates_per_step=0"):
        nts.as_optax(make_watch(), updates_per_step=0)
