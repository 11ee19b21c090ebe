"""Runs that go on after they were stopped."""

import sqlite3
import tempfile
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkstats import collectors
from ntkstats.errors import RecordingWarning, RunMismatchError, RunNotFoundError
from ntkstats.models import Probe, as_model
from ntkstats.recording import RecordAt, Recorder, list_runs, open_run
from tests.recording.helpers import MODEL, PROBE, state, train, weight_mean, weights

BASE = {
    "model": MODEL,
    "probes": PROBE,
    "collectors": weight_mean(),
    "at": RecordAt.every(1),
    "config": {"lr": 0.1, "net": {"width": 4}},
    "seed": 1,
}


def recorder_at(path, **changes):
    given = {"path": path, "resume": True, **BASE, **changes}
    return Recorder(**given)


@pytest.fixture
def stopped(tmp_path):
    """A run with the records 0, ..., 5 whose last calls are to be repeated."""
    with recorder_at(tmp_path / "run") as recorder:
        train(recorder, 0, 6, loss=lambda step: float(step))
    return tmp_path / "run"


def test_resuming_a_run_that_is_not_there_starts_it(tmp_path):
    with recorder_at(tmp_path / "run") as recorder:
        train(recorder, 0, 2)
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 1]


def test_a_resumed_run_supersedes_the_rows_from_its_first_step_on(stopped):
    with recorder_at(stopped) as recorder:
        for step in (3, 4):
            recorder(step, {"w": state(step)["w"] + 0.5}, loss=10.0 * step)
        recorder.finish({"w": state(5)["w"] + 0.5})
    ds = open_run(stopped)
    assert ds.step.values.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(ds.weight_mean, [1, 2, 3, 4.5, 5.5, 6.5])
    np.testing.assert_array_equal(ds.loss, [0, 1, 2, 30, 40, np.nan])
    assert ds.attrs["status"] == "finished"
    assert [a["status"] for a in ds.attrs["attempts"]] == ["closed", "finished"]


def test_superseded_rows_stay_in_the_file(stopped):
    with recorder_at(stopped) as recorder:
        train(recorder, 3, 5)
    everything = open_run(stopped, attempts="all")
    assert everything.step.values.tolist() == [0, 1, 2, 3, 4, 5, 3, 4]
    assert everything.attempt.values.tolist() == [1] * 6 + [2] * 2
    assert open_run(stopped, attempts=1).step.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert open_run(stopped, attempts=2).step.values.tolist() == [3, 4]
    with pytest.raises(RunNotFoundError, match=r"no attempt 3.*\[1, 2\]"):
        open_run(stopped, attempts=3)


def test_every_attempt_supersedes_all_earlier_ones(stopped):
    for start in (4, 2, 3):
        with recorder_at(stopped) as recorder:
            recorder(start, state(10 * start))
    ds = open_run(stopped)
    assert ds.step.values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(ds.weight_mean, [1, 2, 21, 31])


def test_an_attempt_without_a_record_supersedes_nothing(stopped):
    recorder = recorder_at(stopped)
    recorder.bind(state(2))
    recorder.close()
    assert open_run(stopped).step.values.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_longer_run_holds_what_it_would_hold_had_it_never_stopped(tmp_path):
    sparse = RecordAt.every(4)
    with recorder_at(tmp_path / "run", at=sparse) as recorder:
        train(recorder, 0, 6)
        recorder.finish(state(6))
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 4, 6]
    with recorder_at(tmp_path / "run", at=sparse) as recorder:
        train(recorder, 6, 9)
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 4, 8]


def test_the_first_state_is_recorded_where_the_file_holds_nothing_before_it(tmp_path):
    for start in (3, 2):
        with recorder_at(tmp_path / "run", at=RecordAt.every(4)) as recorder:
            train(recorder, start, 6)
    assert open_run(tmp_path / "run").step.values.tolist() == [2, 4]


def test_a_finished_run_can_be_made_longer(stopped):
    with recorder_at(stopped, at=RecordAt.steps([9, 20])) as recorder:
        recorder.finish(state(9), step=9)
    ds = open_run(stopped)
    assert ds.step.values.tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert ds.attrs["finished"] is True


def test_what_collectors_remember_can_travel_with_a_checkpoint(tmp_path):
    what = collectors.param_distance()
    with recorder_at(tmp_path / "run", collectors=what) as recorder:
        train(recorder, 0, 3)
        checkpoint = jax.device_get(recorder.carry)
    with recorder_at(tmp_path / "run", collectors=what) as recorder:
        recorder.bind(state(3))
        recorder.carry = checkpoint
        train(recorder, 3, 5)
    ds = open_run(tmp_path / "run")
    np.testing.assert_allclose(ds.param_distance, np.sqrt(6) * np.arange(5), rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.sets(st.integers(0, 5), max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_the_reader_shows_what_a_run_that_truncates_on_resume_would_hold(attempts):
    expected: dict[int, float] = {}
    everything = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (start, offsets) in enumerate(attempts):
            with recorder_at(f"{folder}/run") as recorder:
                recorder.bind(state(0))
                steps = sorted({start, *(start + offset for offset in offsets)})
                values = [100.0 * number + step for step in steps]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RecordingWarning)  # gaps
                    recorder.extend({"weight_mean": np.array(values, np.float32)}, steps)
            kept = {step: value for step, value in expected.items() if step < start}
            expected = kept | dict(zip(steps, values, strict=True))
            everything += len(steps)
        ds = open_run(f"{folder}/run")
        assert dict(zip(ds.step.values.tolist(), ds.weight_mean.values, strict=True)) == expected
        assert open_run(f"{folder}/run", attempts="all").sizes["step"] == everything


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"config": {"lr": 0.2, "net": {"width": 4}}}, r"config\.lr was 0\.1 and is now 0\.2"),
        ({"config": {"lr": 0.1, "net": {}}}, r"config\.net\.width was 4 and is now missing"),
        (
            {"config": {"lr": 0.1, "net": {"width": 4}, "new": True}},
            r"config\.new is new \(true\)",
        ),
        ({"config": None}, r"config was \{.*\} and is now null"),
        ({"seed": 2}, "seed was 1 and is now 2"),
        ({"key": jax.random.key(5)}, r"key was \[0, 0\] and is now \[0, 5\]"),
        ({"members": 2}, "members was null and is now 2"),
    ],
)
def test_other_settings_are_refused_before_anything_is_trained(stopped, changes, part):
    before = stopped.with_suffix(".sqlite").read_bytes()
    with pytest.raises(RunMismatchError, match=part):
        recorder_at(stopped, **changes)
    # The lock is given back, and the records are as they were.
    recorder_at(stopped).close()
    assert len(before) == stopped.with_suffix(".sqlite").stat().st_size
    assert open_run(stopped).step.values.tolist() == [0, 1, 2, 3, 4, 5]


OTHER_PROBE = Probe(2 * np.eye(3, dtype=np.float32), np.array([0, 1, 0]))
OTHER_MODEL = as_model(lambda params, x: x @ params["w"], name="another")
WIDER = {"w": jnp.ones((3, 5))}


@pytest.mark.parametrize(
    ("changes", "obj", "part"),
    [
        ({"probes": OTHER_PROBE}, state(6), r"measurement\.probes\.probe\.hash was"),
        ({"model": OTHER_MODEL}, state(6), r'measurement\.model was "linear" and is now "another"'),
        ({}, WIDER, r"parameter_shapes\.\['w'\] was \[\[3, 2\]"),
        ({"collectors": weights()}, state(6), r"fields\.weight_mean was .* is now missing"),
        (
            {"collectors": weight_mean(at=RecordAt.every(2))},
            state(6),
            r'fields\.weight_mean\.axis was "step" and is now "step_every_2"',
        ),
        ({"precision": "float64"}, state(6), r'precision was "float32" and is now "float64"'),
    ],
)
def test_another_measurement_is_refused_at_the_first_call(stopped, changes, obj, part):
    recorder = recorder_at(stopped, **changes)
    with pytest.raises(RunMismatchError, match=part):
        recorder(6, obj)
    recorder.close()
    assert open_run(stopped).step.values.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_run_that_nobody_closed_is_called_killed(stopped):
    connection = sqlite3.connect(stopped.with_suffix(".sqlite"))
    connection.execute("UPDATE attempts SET status = 'running', ended = NULL")
    connection.commit()
    connection.close()
    assert open_run(stopped).attrs["status"] == "killed"
    (info,) = list_runs(stopped.parent)
    assert (info.status, info.records, info.last_step) == ("killed", 6, 5)
    with recorder_at(stopped) as recorder:
        train(recorder, 6, 7)
    statuses = [a["status"] for a in open_run(stopped).attrs["attempts"]]
    assert statuses == ["killed", "closed"]


def test_a_run_in_progress_is_called_running(stopped):
    recorder = recorder_at(stopped)
    recorder(6, state(6))
    assert open_run(stopped).attrs["status"] == "running"
    recorder.close()
