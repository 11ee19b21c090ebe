"""An interrupted and resumed run holds exactly what an uninterrupted one holds."""

import re
import warnings
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntkstats as nts
from ntkstats import collectors
from ntkstats.errors import RecordingError, RecordingWarning, RunMismatchError
from tests.collectors.systems import digits, mlp, mlp_params

X, Y = digits()
PROBE = nts.Probe(X[:8], Y[:8])
MODEL = nts.as_model(mlp)
TX = optax.adam(3e-3)
STEPS = 22
CONFIG = {"width": 6, "rate": 3e-3}


def draws(name="draws"):
    """A collector that remembers a typed key, an empty array and a number of calls."""

    def init(binding, head, key):
        return {"key": key, "count": jnp.zeros((), jnp.int32), "nothing": jnp.zeros((0, 3))}

    def measure(moment, carry):
        key, now = jax.random.split(carry["key"])
        leaf = jax.tree.leaves(moment.snapshot.params)[0]
        value = jnp.vdot(jax.random.normal(now, leaf.shape), leaf)
        return carry | {"key": key, "count": carry["count"] + 1}, {"draw": value}

    labels = {"draw": collectors.Label("random projection")}
    return collectors.Collector(name, measure, lambda b, h: labels, init=init, uses_head=False)


def measured():
    return [
        collectors.kernel_velocity(),
        collectors.param_distance(at=nts.RecordAt.every(3)),
        draws(),
    ]


@jax.jit
def update(params, opt_state, step):
    start = 10 * step % 1000
    x, y = (jax.lax.dynamic_slice_in_dim(jnp.asarray(a), start, 10) for a in (X, Y))

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(mlp(params, x), y).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, opt_state = TX.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, value


def recorder_at(path, **options):
    given = {"collectors": measured(), "at": nts.RecordAt.every(4), "config": CONFIG, **options}
    return nts.Recorder(path, MODEL, PROBE, resume=True, **given)


def attempt(path, until, checkpoint=None, *, save_at=(), before_the_call=True, options=None):
    """Train from a checkpoint (or the start) until killed or done; the checkpoints by step."""
    start, params, opt_state, remembered = checkpoint or (0, *fresh(), None)
    recorder = recorder_at(path, **(options or {}))
    if remembered is not None:
        recorder.restore(remembered)
    saved = {}
    for step in range(start, until):
        if step in save_at and before_the_call and step > start:
            saved[step] = (step, params, opt_state, recorder.state())
        recorder(step, params)
        if step in save_at and not before_the_call:
            saved[step] = (step, params, opt_state, recorder.state())
        params, opt_state, _ = update(params, opt_state, step)
    if until == STEPS:
        recorder.finish(params)
    else:
        recorder.close()  # a kill leaves the same rows, see test_crash.py
    return saved


@cache
def fresh():
    params = mlp_params(0, (64, 6, 10))
    return params, TX.init(params)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    attempt(path, STEPS)
    return nts.open_run(path)


def assert_same_records(path, whole):
    ds = nts.open_run(path)
    assert set(ds.variables) == set(whole.variables)
    for name in sorted(set(map(str, ds.variables)) - {"wall_time", "record_seconds"}):
        if "wall_time" in name or "record_seconds" in name:
            continue
        np.testing.assert_array_equal(ds[name], whole[name], err_msg=name)
    return ds


def test_the_uninterrupted_run_is_what_the_others_are_compared_with(whole):
    assert whole.step.values.tolist() == [0, 4, 8, 12, 16, 20, 22]
    assert whole.step_every_3.values.tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 22]
    assert (whole.kernel_velocity[1:] > 0).all()
    assert len(np.unique(whole.draw)) == 7


# (killed before the update of, checkpoint at, saved before the recorder's call)
CASES = {
    "checkpoint at the last record": (9, 8, False),
    "checkpoint before the record of its step": (9, 8, True),
    "checkpoint between two records": (9, 7, True),
    "checkpoint between two records, after the call": (9, 7, False),
    "checkpoint older than several records": (19, 5, True),
    "checkpoint of the first state": (6, 0, False),
    "killed before the next record": (11, 10, True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_holds_exactly_what_an_uninterrupted_one_holds(case, tmp_path, whole):
    killed, at, before = CASES[case]
    saved = attempt(tmp_path / "run", killed, save_at={at}, before_the_call=before)
    attempt(tmp_path / "run", STEPS, saved[at])
    ds = assert_same_records(tmp_path / "run", whole)
    assert ds.attrs["failures"] == []
    assert [a["status"] for a in ds.attrs["attempts"]] == ["closed", "finished"]


def test_a_run_may_be_resumed_again_and_again(tmp_path, whole):
    first = attempt(tmp_path / "run", 11, save_at={5})
    second = attempt(tmp_path / "run", 17, first[5], save_at={9, 12})
    attempt(tmp_path / "run", 20, second[12])
    attempt(tmp_path / "run", STEPS, second[9])  # the later checkpoint was lost
    ds = assert_same_records(tmp_path / "run", whole)
    assert ds.attrs["failures"] == []
    assert len(ds.attrs["attempts"]) == 4


def test_members_of_an_ensemble_go_on_as_well(tmp_path):
    def stacked(path, parts):
        for start, stop, recorder in parts:
            for step in range(start, stop):
                recorder(step, jax.tree.map(lambda p, s=step: p + 0.1 * s, several))
        recorder.finish(jax.tree.map(lambda p: p + 1.0, several), step=10)
        return nts.open_run(path)

    several = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p, -p]), fresh()[0])
    options = {"members": 3, "collectors": [draws(), collectors.param_distance()]}
    whole = stacked(tmp_path / "a", [(0, 10, recorder_at(tmp_path / "a", **options))])
    first = recorder_at(tmp_path / "b", **options)
    for step in range(6):
        first(step, jax.tree.map(lambda p, s=step: p + 0.1 * s, several))
    state = first.state()
    first.close()
    second = recorder_at(tmp_path / "b", **options)
    second.restore(state)
    stacked(tmp_path / "b", [(6, 10, second)])
    assert_same_records(tmp_path / "b", whole)
    assert whole.draw.shape == (4, 3)


def through_npz(state, folder):
    np.savez(folder / "state.npz", **state)
    with np.load(folder / "state.npz", allow_pickle=False) as file:
        return dict(file)


def through_safetensors(state, folder):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file(state, folder / "state.safetensors")
    return numpy.load_file(folder / "state.safetensors")


def through_orbax(state, folder):
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state")


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("travel", [through_npz, through_safetensors, through_orbax])
def test_the_state_survives_any_checkpoint_format(travel, precision, tmp_path):
    what = {"collectors": [draws(), collectors.kernel_velocity()], "precision": precision}
    recorder = recorder_at(tmp_path / "run", **what)
    params, opt_state = fresh()
    recorder(0, params)
    moved = update(params, opt_state, 0)[0]
    recorder(4, moved)
    state = recorder.state()
    recorder.close()
    back = travel(state, tmp_path)
    assert set(back) == set(state)
    for name, array in state.items():
        assert array.dtype == np.asarray(back[name]).dtype
    again = recorder_at(tmp_path / "run", **what)
    again.restore(back)
    again.bind(moved)
    for a, b in zip(*map(jax.tree.leaves, (recorder.carry, again.carry)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(*(np.asarray(_numbers(leaf)) for leaf in (a, b)))
    again.close()


def _numbers(leaf):
    typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if typed else leaf


def test_a_state_is_never_ahead_of_the_file(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    for step in range(9):
        recorder(step, fresh()[0])
        last = int(recorder.state()["recorded"])
        assert nts.open_run(tmp_path / "run").step.values[-1] <= last
        assert last in nts.open_run(tmp_path / "run", attempts="all").step_every_3.values or (
            last in nts.open_run(tmp_path / "run").step.values
        )
    recorder.close()


def gap_warning(text):
    return pytest.warns(RecordingWarning, match=text)


def test_a_checkpoint_newer_than_the_records_leaves_a_gap_that_is_said_and_stored(tmp_path, whole):
    saved = attempt(tmp_path / "lost", 18, save_at={18, 17})
    attempt(tmp_path / "run", 10)  # the file of which only an old copy is left
    with gap_warning(r"continue without a gap at step 17.*3 records.*12, 15, 16; the last.* 9"):
        attempt(tmp_path / "run", STEPS, saved[17])
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 4, 8, 20, 22]
    (failure,) = ds.attrs["failures"]
    assert (failure["step"], failure["stage"]) == (17, "continue without a gap")
    # What is there is still that of the uninterrupted run, also the velocity across the gap.
    for step in (8, 20, 22):
        assert ds.kernel_velocity.sel(step=step) == whole.kernel_velocity.sel(step=step) or step < 9


def test_a_lost_file_is_a_gap_as_well(tmp_path):
    saved = attempt(tmp_path / "run", 8, save_at={7})
    (tmp_path / "run.sqlite").unlink()
    with gap_warning("the file holds none before it"):
        attempt(tmp_path / "run", STEPS, saved[7])
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [8, 12, 16, 20, 22]


def test_a_gap_is_found_without_a_restored_state_too(tmp_path):
    what = {"collectors": collectors.param_norm()}
    with recorder_at(tmp_path / "run", **what) as recorder:
        for step in range(7):
            recorder(step, fresh()[0])
    with gap_warning(r"2 records .*8, 12; the last stored one is 4"):
        recorder = recorder_at(tmp_path / "run", **what)
        recorder(15, fresh()[0])
    recorder.close()


def test_a_gap_is_an_error_where_errors_are_wanted(tmp_path):
    saved = attempt(tmp_path / "lost", 18, save_at={17})
    attempt(tmp_path / "run", 10)
    with pytest.raises(RecordingError, match="continue without a gap"):
        attempt(tmp_path / "run", STEPS, saved[17], options={"strict": True})


def test_loops_that_skip_due_steps_are_not_accused_of_gaps(tmp_path):
    what = {"collectors": collectors.param_norm(), "at": nts.RecordAt.every(3)}
    for start, stop in ((0, 40), (40, 60)):
        with recorder_at(tmp_path / "run", **what) as recorder, warnings.catch_warnings():
            warnings.simplefilter("error")
            for step in range(start, stop, 10):
                recorder(step, fresh()[0])
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 30]


def test_failures_are_not_gaps(tmp_path):
    what = {"collectors": collectors.param_norm()}
    with recorder_at(tmp_path / "run", **what) as recorder:
        recorder(0, fresh()[0])
        with pytest.warns(RecordingWarning, match="could not measure at step 4"):
            recorder(4, fresh()[0][:1])
    with recorder_at(tmp_path / "run", **what) as recorder:
        recorder(6, fresh()[0])
        recorder(8, fresh()[0])
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 8]


def test_a_forgotten_state_is_said_and_stored(tmp_path):
    saved = attempt(tmp_path / "run", 6, save_at={5})
    with gap_warning(r"remember earlier records at step 5.*kernel_velocity.*recorder\.restore"):
        attempt(tmp_path / "run", STEPS, (*saved[5][:3], None))
    ds = nts.open_run(tmp_path / "run")
    assert [f["stage"] for f in ds.attrs["failures"]] == ["remember earlier records"]
    assert np.isnan(ds.kernel_velocity.sel(step=8))


def test_the_state_of_an_older_checkpoint_is_said_and_nothing_is_superseded(tmp_path):
    saved = attempt(tmp_path / "run", 11, save_at={5, 10})
    mixed = (*saved[10][:3], saved[5][3])
    with gap_warning(r"remember the last record.*up to step 4.*saved with the checkpoint of step"):
        attempt(tmp_path / "run", 13, mixed)
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 4, 8, 12]


def test_the_state_of_a_newer_checkpoint_is_refused(tmp_path):
    saved = attempt(tmp_path / "run", 11, save_at={5, 10})
    mixed = (*saved[5][:3], saved[10][3])
    with pytest.raises(RecordingError, match=r"goes on at step 5.*record of step 9.*checkpoint of"):
        attempt(tmp_path / "run", 13, mixed)


OTHER = {
    "config": ({"config": {**CONFIG, "rate": 0.1}}, r"config\.rate was 0\.003 and is now 0\.1"),
    "collectors": (
        {"collectors": [collectors.param_norm(), draws()]},
        "fields.kernel_velocity was .* is now missing",
    ),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_run_is_not_resumed(case, tmp_path):
    options, part = OTHER[case]
    saved = attempt(tmp_path / "run", 6, save_at={5})
    with pytest.raises(RunMismatchError, match=part):
        attempt(tmp_path / "run", 8, saved[5], options=options)


def without(state, name):
    return {key: value for key, value in state.items() if name not in key}


KERNEL = "carry/kernel_velocity/previous"
BAD_STATES = {
    "nothing": (lambda s: None, RecordingError, "NoneType.*recorder.state"),
    "the training state": (lambda s: {"params": 1}, RecordingError, r"dict \['params'\]"),
    "no step": (lambda s: s | {"recorded": np.ones(2)}, RecordingError, "last recorded step"),
    "an array too few": (
        lambda s: without(s, "previous"),
        RunMismatchError,
        re.escape(KERNEL) + r" is absent, expected float32\[8, 8\]",
    ),
    "an array too many": (
        lambda s: s | {"carry/x": np.ones(3)},
        RunMismatchError,
        r"carry/x is float64\[3\], expected no such array",
    ),
    "another shape": (
        lambda s: s | {KERNEL: np.ones((9, 9), np.float32)},
        RunMismatchError,
        r"is float32\[9, 9\], expected float32\[8, 8\]",
    ),
    "another dtype": (
        lambda s: s | {KERNEL: np.ones((8, 8), np.float16)},
        RunMismatchError,
        "is float16",
    ),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_what_is_no_state_of_this_recorder_is_refused(case, tmp_path):
    change, error, part = BAD_STATES[case]
    saved = attempt(tmp_path / "run", 6, save_at={5})
    step, params, _, state = saved[5]

    def resume():
        with recorder_at(tmp_path / "run") as recorder:
            recorder.restore(change(state))
            recorder(step, params)

    with pytest.raises(error, match=part):
        resume()
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 4]


def test_a_state_is_restored_before_the_first_call_only(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder(0, fresh()[0])
    with pytest.raises(RecordingError, match="restore first"):
        recorder.restore(recorder.state())
    recorder.close()


def test_stacked_records_go_on_from_a_restored_state(tmp_path):
    what = {"collectors": collectors.param_norm(), "at": nts.RecordAt.every(1)}
    first = recorder_at(tmp_path / "run", **what)
    first.bind(fresh()[0])
    first.extend({"param_norm": np.arange(5.0, dtype=np.float32)}, range(5))
    state = first.state()
    first.extend({"param_norm": np.full(2, -1, np.float32)}, [5, 6])
    first.close()
    again = recorder_at(tmp_path / "run", **what)
    again.bind(fresh()[0])
    again.restore(state)
    # The chunk begins with the record that ended the one before.
    again.extend({"param_norm": np.arange(4.0, 9.0, dtype=np.float32)}, range(4, 9))
    again.close()
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == list(range(9))
    np.testing.assert_array_equal(ds.param_norm, range(9))
    assert ds.attrs["failures"] == []


def test_the_state_may_be_saved_before_the_first_call_and_right_after_a_restore(tmp_path):
    options = {"at": nts.RecordAt.every(2), "resume": True}
    measure = nts.collectors.kernel_velocity()
    first = nts.Recorder(tmp_path / "run", MODEL, PROBE, measure, **options)
    empty = first.state()
    assert empty == {"recorded": -1}
    first(0, mlp_params(0, (64, 6, 10)))
    saved = first.state()
    first.close()
    again = nts.Recorder(tmp_path / "run", MODEL, PROBE, measure, **options)
    again.restore(saved)
    assert again.state().keys() == saved.keys()
    for name, array in again.state().items():
        np.testing.assert_array_equal(array, saved[name])
    again.close()
    fresh = nts.Recorder(tmp_path / "new", MODEL, PROBE, measure, **options)
    fresh.restore(empty)
    fresh(0, mlp_params(0, (64, 6, 10)))
    assert fresh.close().failures == 0
