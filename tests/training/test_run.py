"""The reference loop, against loops written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkstats import collectors, errors, training
from ntkstats.models import Probe, as_model
from ntkstats.recording import RecordAt, Recorder, open_run
from tests.collectors.systems import digits, mlp, mlp_params

X, Y = (np.asarray(a[:40]) for a in digits())


def loss(output, y):
    return optax.softmax_cross_entropy_with_integer_labels(output, y)


def init(key):
    seed = jax.random.randint(key, (), 0, 2**20)
    params = mlp_params(0, (64, 6, 10))
    return jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(seed), p.shape), params
    )


def make_task(batch_size=10, x=X, y=Y):
    return training.supervised(init, mlp, optax.sgd(0.1), loss, x, y, batch_size=batch_size)


TASK = make_task()
KEYS = jax.random.split(jax.random.key(3), 3)


def conv_task():
    def start(key):
        k1, k2 = jax.random.split(key)
        return {"c": jax.random.normal(k1, (3, 3, 1, 2)) / 3, "w": jax.random.normal(k2, (2, 10))}

    def apply(params, x):
        x = x.reshape(-1, 8, 8, 1)
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, params["c"], (1, 1), "SAME", dimension_numbers=dims)
        return jnp.tanh(x).mean((1, 2)) @ params["w"]

    return training.supervised(start, apply, optax.sgd(0.1), loss, X, Y, batch_size=10)


def assert_trees_close(a, b, rtol=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)


def test_members_train_as_they_would_alone():
    together = training.run(TASK, KEYS, 7)
    for i in range(3):
        alone = training.run(TASK, KEYS[i : i + 1], 7)
        assert_trees_close(
            jax.tree.map(lambda p, i=i: p[i], together.params),
            jax.tree.map(lambda p: p[0], alone.params),
        )


def test_result_is_that_of_a_loop_written_out():
    carry = training.run(TASK, KEYS[:1], 9)
    by_hand = TASK.init(KEYS[0])
    params = by_hand.params
    for i in range(9):
        if i % 4 == 0:
            order = jax.random.permutation(jax.random.fold_in(by_hand.key, i), 40)
        index = order[(i % 4) * 10 : (i % 4 + 1) * 10]
        grads = jax.grad(lambda p, i=index: loss(mlp(p, X[i]), Y[i]).mean())(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert_trees_close(jax.tree.map(lambda p: p[0], carry.params), params)


def test_every_epoch_visits_every_sample_once():
    orders = []
    carry = training.run(TASK, KEYS, 1)
    for epoch in range(3):
        carry = training.run(TASK, KEYS, 1 + 4 * epoch)
        orders.append(np.asarray(carry.order))
        for order in orders[-1]:
            np.testing.assert_array_equal(np.sort(order), np.arange(40))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0][0], orders[0][1])


def test_unrolled_and_rolled_loops_agree():
    task = conv_task()
    a, b = (training.run(task, KEYS, 6, unroll=unroll) for unroll in (True, False))
    assert_trees_close(a.params, b.params, rtol=1e-4)


def test_convolutions_are_unrolled_on_cpu_only_where_they_occur(monkeypatch):
    from ntkstats.training import _run

    used = []
    for name in ("_rolled", "_stepwise"):
        original = getattr(_run, name)

        def spy(task, _original=original, _name=name):
            used.append(_name)
            return _original(task)

        monkeypatch.setattr(_run, name, spy)
    training.run(TASK, KEYS, 1)
    training.run(conv_task(), KEYS, 1)
    on_cpu = jax.default_backend() == "cpu"
    assert used == ["_rolled", "_stepwise" if on_cpu else "_rolled"]


def test_no_step_is_compiled_twice():
    traces = []

    def counted(carry, i):
        traces.append(1)
        return TASK.step(carry, i)

    task = TASK._replace(step=counted)
    training.run(task, KEYS, 11, unroll=False)
    training.run(task, KEYS, 23, unroll=False)
    assert len(traces) == 1


def record(path, steps, at, **options):
    model = as_model(mlp)
    recorder = Recorder(
        path, model, Probe(X[:8], Y[:8]), collectors.loss(loss), at=at, members=3, **options
    )
    carry = training.run(TASK, KEYS, steps, recorder=recorder)
    return carry, open_run(path)


def test_records_lie_where_the_schedule_says_and_at_the_end(tmp_path):
    carry, ds = record(tmp_path / "run", 10, RecordAt.every(4))
    assert ds.step.values.tolist() == [0, 4, 8, 10]
    assert ds.sizes["member"] == 3
    for step in (4, 10):
        # The recorded loss belongs to the parameters after that many updates.
        params = training.run(TASK, KEYS, step).params
        for member in range(3):
            outputs = mlp(jax.tree.map(lambda p, m=member: p[m], params), X[:8])
            expected = loss(outputs, Y[:8]).mean()
            found = ds.loss.sel(step=step).isel(member=member)
            np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert ds.attrs["status"] == "finished"
    assert carry.params[0][0].shape[0] == 3


def test_final_step_on_the_schedule_is_recorded_once(tmp_path):
    _, ds = record(tmp_path / "run", 8, RecordAt.every(4))
    assert ds.step.values.tolist() == [0, 4, 8]


def test_no_step_at_all_records_the_initialisation(tmp_path):
    _, ds = record(tmp_path / "run", 0, RecordAt.every(4))
    assert ds.step.values.tolist() == [0]


def test_recording_does_not_change_the_training(tmp_path):
    carry, _ = record(tmp_path / "run", 10, RecordAt.every(3))
    assert_trees_close(carry.params, training.run(TASK, KEYS, 10).params)


def resumable(path, steps, checkpoint=None, save_at=None):
    """Train and record; the checkpoints by step."""
    recorder = Recorder(
        path,
        as_model(mlp),
        Probe(X[:8], Y[:8]),
        [collectors.loss(loss), collectors.kernel_velocity()],
        at=RecordAt.every(3),
        members=3,
        resume=True,
    )
    saved = {}
    start, carry = 0, None
    if checkpoint is not None:
        start, carry, state = checkpoint
        recorder.restore(state)

    def save(step, carry):
        saved[step] = (step, jax.device_get(carry), recorder.state())

    training.run(
        TASK, KEYS, steps, recorder=recorder, carry=carry, start=start,
        **({"save": save, "save_at": save_at} if save_at else {}),
    )  # fmt: skip
    return saved, open_run(path)


@pytest.mark.parametrize("at", [6, 7])
def test_a_run_goes_on_from_a_saved_carry_as_if_it_had_never_stopped(at, tmp_path):
    _, whole = resumable(tmp_path / "whole", 13)
    saved, _ = resumable(tmp_path / "run", 8, save_at=RecordAt.steps([0, at, 8]))
    assert list(saved) == [at, 8]  # the start is there already
    _, ds = resumable(tmp_path / "run", 13, saved[at])
    assert ds.step.values.tolist() == [0, 3, 6, 9, 12, 13]
    for name in ds.data_vars:
        np.testing.assert_array_equal(ds[name], whole[name])
    assert ds.attrs["failures"] == []


def test_a_finished_run_goes_on_from_its_last_carry():
    carry = training.run(TASK, KEYS, 5)
    assert_trees_close(
        training.run(TASK, KEYS, 12, carry=carry, start=5).params,
        training.run(TASK, KEYS, 12).params,
        rtol=0,
    )


def test_progress_ends_at_the_total_and_never_goes_back():
    seen = []
    training.run(TASK, KEYS, 250, progress=lambda done, total: seen.append((done, total)))
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (250, 250)
    assert len(seen) > 50


def test_raw_keys_work_like_typed_ones():
    raw = jax.random.key_data(KEYS)
    a = training.run(make_task(), raw, 3)
    b = training.run(TASK, KEYS, 3)
    assert_trees_close(a.params, b.params)


def wrong_members(tmp_path):
    recorder = Recorder(
        tmp_path / "run", as_model(mlp), Probe(X), collectors.param_norm(), members=2
    )
    try:
        training.run(TASK, KEYS, 3, recorder=recorder)
    finally:
        recorder.close()


BAD = {
    "start beyond the end": (lambda _: training.run(TASK, KEYS, 3, start=4), "from 0 to 3"),
    "start without a carry": (lambda _: training.run(TASK, KEYS, 3, start=1), "without carry="),
    "carry of other members": (
        lambda _: training.run(TASK, KEYS, 3, carry=training.run(TASK, KEYS[:2], 1), start=1),
        r"leading axis of 3",
    ),
    "save without a schedule": (
        lambda _: training.run(TASK, KEYS, 3, save=print),
        "belong together",
    ),
    "one key": (lambda _: training.run(TASK, jax.random.key(0), 3), "one PRNG key a member"),
    "no key": (lambda _: training.run(TASK, KEYS[:0], 3), "one PRNG key a member"),
    "keys of another kind": (lambda _: training.run(TASK, jnp.arange(3), 3), "PRNG key"),
    "negative steps": (lambda _: training.run(TASK, KEYS, -1), "steps=-1"),
    "half a step": (lambda _: training.run(TASK, KEYS, 2.5), "steps=2.5"),
    "recorder of another size": (wrong_members, "members=3"),
    "batch larger than the data": (lambda _: make_task(batch_size=41), "batch_size=41"),
    "empty batch": (lambda _: make_task(batch_size=0), "batch_size=0"),
    "x and y of different length": (lambda _: make_task(y=Y[:-1]), "number of samples"),
    "scalar y": (lambda _: make_task(y=np.float32(1)), "number of samples"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_error(case, tmp_path):
    call, part = BAD[case]
    with pytest.raises(errors.TrainingError, match=part):
        call(tmp_path)
