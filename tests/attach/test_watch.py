"""Collectors inside loops on the device give what a recorder outside gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.training.train_state import TrainState

import ntkstats as nts
from ntkstats.attach._gate import only_if
from ntkstats.errors import RecordingError

STEPS = 12
AT = nts.RecordAt.every(5)
DUE = [0, 5, 10]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 64)
PROBE = nts.Probe(X[:8], Y[:8])
MODULE = nn.Sequential([nn.Dense(7), nn.tanh, nn.Dense(3)])
MODEL = nts.as_model(MODULE)
COLLECTORS = [nts.collectors.ntk_spectrum(), nts.collectors.param_distance()]


def loss_of(params, i):
    logits = MODULE.apply({"params": params}, jax.lax.dynamic_slice_in_dim(X, 5 * i, 5))
    labels = jax.lax.dynamic_slice_in_dim(Y, 5 * i, 5)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def start(key):
    return MODULE.init(key, X[:1])["params"]


def trained(params, i):
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss_of)(params, i))


def make_watch(**options):
    program = nts.collectors.bind(MODEL, start(jax.random.key(0)), PROBE, COLLECTORS, **options)
    return nts.watch(program, MODEL, AT, until=STEPS)


def scanned(watch, key):
    """Training in one scan; the parameters at the end and the records."""

    def step(carry, i):
        params, watched = carry
        watched = watch.measure_if(watched, i, params)
        return (trained(params, i), watched), None

    return jax.lax.scan(step, (start(key), watch.init()), jnp.arange(STEPS))[0]


def outside(key):
    """The same records from the program, step by step."""
    program = make_watch().program
    params, carry, records = start(key), program.init(jax.random.key(0)), []
    for i in range(STEPS):
        if i in DUE:
            snapshot = nts.collectors.Snapshot(i, *MODEL.split(params), {})
            carry, record = program.jitted(carry, snapshot)
            records.append(record)
        params = jax.jit(trained)(params, i)
    return {name: np.stack([r[name] for r in records]) for name in records[0]}, params


def check_equal(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=2e-5 * scale, err_msg=name)


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


# --- watch.scan -------------------------------------------------------------------------------


def stepped(carry, i):
    params = trained(carry, i)
    return params, {"norm": optax.tree.norm(params), "i": i}


def test_a_watched_scan_is_a_scan_and_records_what_a_loop_outside_records():
    key = jax.random.key(1)
    expected, params = outside(key)
    watch = make_watch()
    run = jax.jit(lambda key: watch.scan(stepped, start(key), jnp.arange(STEPS)))
    final, ys, watched = run(key)
    records, steps = watch.results(watched)
    assert steps.tolist() == DUE
    check_equal(records, expected)
    plain, plain_ys = jax.jit(lambda key: jax.lax.scan(stepped, start(key), jnp.arange(STEPS)))(key)
    jax.tree.map(np.testing.assert_array_equal, (final, ys), (plain, plain_ys))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), final, params)


def test_seeds_of_a_watched_scan_are_measured_side_by_side():
    keys = jax.random.split(jax.random.key(2), 3)
    watch = make_watch()
    run = jax.jit(jax.vmap(lambda key: watch.scan(stepped, start(key), jnp.arange(STEPS))[2]))
    records, steps = watch.results(run(keys))
    assert steps.tolist() == DUE
    for i, key in enumerate(keys):
        check_equal({name: values[i] for name, values in records.items()}, outside(key)[0])


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (nts.RecordAt.steps([3]), [3]),
        (nts.RecordAt.steps([0, 1, 2]), [0, 1, 2]),
        (nts.RecordAt.log(4, until=STEPS), [0, 1, 3, 12]),
        (nts.RecordAt.steps([STEPS]), [STEPS]),
    ],
)
def test_a_watched_scan_stops_at_any_steps_the_last_state_included(at, expected):
    norm = nts.collectors.param_norm()
    program = nts.collectors.bind(MODEL, start(jax.random.key(0)), PROBE, norm)
    watch = nts.watch(program, MODEL, at, until=STEPS)
    init = start(jax.random.key(0))
    _, ys, watched = watch.scan(stepped, init, jnp.arange(STEPS))
    records, steps = watch.results(watched)
    assert steps.tolist() == expected
    norms = np.concatenate([[optax.tree.norm(init)], ys["norm"]])
    np.testing.assert_allclose(records["param_norm"], norms[expected], rtol=1e-5)
    assert ys["i"].tolist() == list(range(STEPS))


def test_a_watched_scan_is_measured_once_a_record_and_traced_once():
    measured, traced = [], []

    def measure(moment, carry):
        jax.debug.callback(lambda step: measured.append(int(step)), moment.snapshot.step)
        return carry, {"zero": jnp.zeros(())}

    counting = nts.collectors.Collector(
        "counting", measure, lambda *_: {"zero": nts.collectors.Label("zero")}, uses_head=False
    )

    def step(carry, i):
        traced.append(1)
        return stepped(carry, i)

    program = nts.collectors.bind(MODEL, start(jax.random.key(0)), PROBE, counting)
    watch = nts.watch(program, MODEL, AT, until=STEPS)
    jax.block_until_ready(watch.scan(step, start(jax.random.key(0)), jnp.arange(STEPS)))
    jax.effects_barrier()
    assert measured == DUE
    assert len(traced) <= 3  # shapes, up to the last record, and on from there


def test_a_carry_with_more_than_the_model_and_extras():
    watch = make_watch()
    init = {"net": start(jax.random.key(0)), "count": 0}

    def step(carry, _):
        return {"net": trained(carry["net"], carry["count"]), "count": carry["count"] + 1}, None

    final, ys, watched = watch.scan(step, init, length=STEPS, obj_of=lambda carry: carry["net"])
    assert ys is None
    assert int(final["count"]) == STEPS
    check_equal(watch.results(watched)[0], outside(jax.random.key(0))[0])


@pytest.mark.parametrize(
    ("xs", "length", "message"),
    [
        (None, None, "expected one size"),
        (jnp.arange(3), 4, "expected one size"),
        ({"a": jnp.arange(3), "b": jnp.arange(4)}, None, "expected one size"),
        (jnp.zeros(()), None, "expected one size"),
    ],
)
def test_a_watched_scan_needs_one_length(xs, length, message):
    with pytest.raises(RecordingError, match=message):
        make_watch().scan(stepped, start(jax.random.key(0)), xs, length)


def test_a_watched_scan_refuses_what_a_scan_refuses():
    init = start(jax.random.key(0))
    steps = {
        "structure": lambda carry, i: ((carry, i), None),
        "dtype": lambda carry, i: (jax.tree.map(lambda a: a.astype(jnp.bfloat16), carry), None),
    }
    for step in steps.values():
        with pytest.raises(TypeError, match="carry"):
            jax.lax.scan(step, init, jnp.arange(STEPS))
        with pytest.raises(TypeError, match="carry"):
            make_watch().scan(step, init, jnp.arange(STEPS))


def test_a_watched_scan_promotes_what_a_scan_promotes():
    def step(carry, i):
        params, total = carry
        return (trained(params, i), total + 0.5), total

    init = (start(jax.random.key(0)), 0)
    (_, total), ys, _ = make_watch().scan(step, init, jnp.arange(STEPS), obj_of=lambda c: c[0])
    (_, same), same_ys = jax.lax.scan(step, init, jnp.arange(STEPS))
    assert total == same == 6.0
    np.testing.assert_array_equal(ys, same_ys)
    assert ys.dtype == same_ys.dtype


def test_a_watched_scan_of_no_steps_is_a_scan_of_none():
    init = start(jax.random.key(0))
    step = lambda carry, x: (carry, 2 * x)  # noqa: E731
    final, ys, watched = make_watch().scan(step, init, jnp.zeros((0, 3)))
    assert ys.shape == (0, 3)
    assert not watched.seen.any()
    jax.tree.map(np.testing.assert_array_equal, final, init)


def test_scans_that_meet_at_a_due_step_measure_it_once():
    program = nts.collectors.bind(
        MODEL, start(jax.random.key(0)), PROBE, nts.collectors.kernel_velocity()
    )
    watch = nts.watch(program, MODEL, nts.RecordAt.every(2), until=STEPS)
    init = start(jax.random.key(0))
    whole = watch.results(watch.scan(stepped, init, jnp.arange(STEPS))[2])
    params, _, watched = watch.scan(stepped, init, jnp.arange(4))
    _, _, watched = watch.scan(stepped, params, jnp.arange(4, STEPS), start=4, watched=watched)
    parts = watch.results(watched)
    assert parts[1].tolist() == whole[1].tolist() == [0, 2, 4, 6, 8, 10, 12]
    for name, values in whole[0].items():  # the first velocity is NaN in both
        np.testing.assert_allclose(parts[0][name], values, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, p: w.scan(stepped, p, jnp.arange(3), start=-3), "start=-3 was given"),
        (lambda w, p: w.scan(stepped, p, jnp.arange(3), start=1.5), "start=1.5 was given"),
        (
            lambda w, p: jax.jit(lambda i: w.scan(stepped, p, jnp.arange(3), start=i)[1])(0),
            "Inside another loop on the device use measure_if",
        ),
        (lambda w, p: w.measure_if(w.init(), 2.0, p), "expected one integer"),
        (lambda w, p: w.measure_if(w.init(), jnp.arange(2), p), "expected one integer"),
        (lambda w, p: w.measure_if(other_watch().init(), 2, p), "records of another one"),
        (
            lambda w, p: w.scan(stepped, p, jnp.arange(3), watched=other_watch().init()),
            "records of another one",
        ),
        (lambda w, p: nts.as_optax(w, updates_per_step=2.5), "updates_per_step=2.5"),
    ],
)
def test_what_makes_no_sense_in_a_watched_loop_is_refused(call, message):
    with pytest.raises(RecordingError, match=message):
        call(make_watch(), start(jax.random.key(0)))


def other_watch():
    program = nts.collectors.bind(
        MODEL, start(jax.random.key(0)), PROBE, nts.collectors.param_norm()
    )
    return nts.watch(program, MODEL, nts.RecordAt.every(1), until=STEPS)


def test_a_watch_is_shown_in_a_line():
    assert len(repr(make_watch())) < 200


def test_a_loop_in_several_watched_scans_counts_on():
    watch = make_watch()
    params = start(jax.random.key(0))
    params, _, watched = watch.scan(stepped, params, jnp.arange(7))
    params, _, watched = watch.scan(stepped, params, jnp.arange(7, 9), start=7, watched=watched)
    params, _, watched = watch.scan(stepped, params, jnp.arange(9, 12), start=9, watched=watched)
    records, steps = watch.results(watched)
    assert steps.tolist() == DUE
    check_equal(records, outside(jax.random.key(0))[0])


def test_what_comes_after_a_measurement_is_the_same():
    watch = make_watch()
    tree = {"a": jnp.array([1.0, jnp.nan, -0.0]), "b": jnp.arange(3)}
    jax.tree.map(np.testing.assert_array_equal, watch.after(watch.init(), tree), tree)


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
