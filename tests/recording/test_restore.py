"""States that are forgotten, of another moment, of another run, or no states at all."""

import re

import numpy as np
import pytest

import ntkstats as nts
from ntkstats import collectors
from ntkstats.errors import RecordingError, RunMismatchError
from tests.collectors.systems import mlp_params
from tests.recording.interrupted import (
    CONFIG,
    MODEL,
    PROBE,
    STEPS,
    attempt,
    draws,
    fresh,
    gap_warning,
    recorder_at,
)


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
