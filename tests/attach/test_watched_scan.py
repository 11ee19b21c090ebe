"""`watch.scan` is `lax.scan`, and records what a loop outside records."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntkstats as nts
from ntkstats.errors import RecordingError
from tests.attach.watched import (
    AT,
    DUE,
    MODEL,
    PROBE,
    STEPS,
    check_equal,
    make_watch,
    outside,
    start,
    trained,
)


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
