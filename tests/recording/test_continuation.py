"""An interrupted and resumed run holds exactly what an uninterrupted one holds."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkstats as nts
from ntkstats import collectors
from ntkstats.errors import RecordingError, RecordingWarning
from tests.recording.interrupted import (
    STEPS,
    attempt,
    draws,
    fresh,
    gap_warning,
    recorder_at,
    update,
)


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
