"""Numbers whose name is taken, and states whose step is unknown, are not passed over in silence."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.errors import RecordingWarning
from ntkstats.recording import RecordAt, Recorder, open_run
from tests.recording.helpers import MODEL, PROBE, state, weight_mean


def recorder_at(path, **options):
    return Recorder(path, MODEL, PROBE, weight_mean(), at=RecordAt.every(1), **options)


@pytest.mark.parametrize(
    ("extras", "part"),
    [
        ({"weight_mean": 5.0}, "another one, such as train_weight_mean="),
        ({"wall_time": 5.0}, "another one, such as train_wall_time="),
    ],
)
def test_a_name_that_is_taken_is_warned_about_once(tmp_path, extras, part):
    with recorder_at(tmp_path / "run") as recorder:
        with pytest.warns(RecordingWarning, match=part):
            recorder(0, state(0), loss=1.0, **extras)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            recorder(1, state(1), loss=2.0, **extras)
    ds = open_run(tmp_path / "run")
    np.testing.assert_array_equal(ds.loss, [1.0, 2.0])
    np.testing.assert_array_equal(ds.weight_mean, [1.0, 2.0])


def test_numbers_that_are_stored_are_not_warned_about(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with recorder_at(tmp_path / "run") as recorder:
            recorder(0, state(0), loss=1.0, rate=jnp.float32(0.1), note="x", batch=np.ones(9))


def test_finish_after_a_scan_asks_for_the_step(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder.bind(state(0))
    recorder.extend({"weight_mean": np.array([1.0, 6.0])}, [0, 5])
    with pytest.warns(RecordingWarning, match="Pass step="):
        report = recorder.finish(state(9))
    assert report.status == "finished"
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 5]


def test_a_warning_that_is_an_error_loses_no_record(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RecordingWarning, match="train_weight_mean"):
            recorder(0, state(0), weight_mean=5.0)
    recorder.close()
    assert open_run(tmp_path / "run").weight_mean.values.tolist() == [1.0]


def test_finish_after_a_scan_records_the_step_that_is_given(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder.bind(state(0))
    recorder.extend({"weight_mean": np.array([1.0, 6.0])}, [0, 5])
    recorder.finish(state(9), step=9)
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 5, 9]
