"""What goes wrong while a recorder runs, and what it refuses."""

import json
import sqlite3
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import collectors
from ntkstats.errors import (
    CollectorError,
    DuplicateNameError,
    ExistingRunError,
    HeadError,
    MissingExtraError,
    MissingTargetsError,
    ModelError,
    NtkStatsError,
    ParamsError,
    ProbeError,
    RecordingError,
    RecordingWarning,
    ScheduleError,
    StoreError,
)
from ntkstats.models import Probe
from ntkstats.recording import RecordAt, Recorder, open_run
from tests.recording.helpers import (
    EVERY,
    MODEL,
    PROBE,
    recorder_at,
    state,
    train,
    weight_mean,
    weights,
)

# --- what goes wrong while it runs ------------------------------------------------------------

WRONG_SHAPE = {"w": jnp.ones((4, 2))}


def test_a_failure_is_stored_and_warned_about_once_and_training_goes_on(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    with pytest.warns(RecordingWarning, match=r"step 1: ParamsError.*The loop goes on") as caught:
        recorder(1, WRONG_SHAPE)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorder(2, WRONG_SHAPE)
        recorder(3, state(3))
        report = recorder.finish(state(4))
    assert (report.records, report.failures) == (3, 2)
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 3, 4]
    assert [(f["step"], f["stage"], f["error"]) for f in ds.attrs["failures"]] == [
        (1, "measure", "ParamsError"),
        (2, "measure", "ParamsError"),
    ]
    assert "is [[4, 2], 'float32']" in ds.attrs["failures"][0]["message"]


def test_an_error_of_any_kind_is_a_failure(tmp_path):
    class Exploding:
        @property
        def params(self):
            raise ZeroDivisionError("boom")

    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    with pytest.warns(RecordingWarning, match="ZeroDivisionError: boom"):
        recorder(1, Exploding())
    assert recorder.close() == (tmp_path / "run.sqlite", 1, 1, "closed", 0)


def test_a_failed_record_does_not_move_what_collectors_remember(tmp_path):
    recorder = recorder_at(tmp_path / "run", collectors.param_distance(), background=False)
    recorder(0, state(0))
    recorder._journal.store._connection.execute("PRAGMA query_only = ON")
    with pytest.warns(RecordingWarning, match="could not write at step 1"):
        recorder(1, state(1))
    recorder._journal.store._connection.execute("PRAGMA query_only = OFF")
    recorder(2, state(2))
    recorder.close()
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 2]
    np.testing.assert_allclose(ds.param_distance, [0, 2 * np.sqrt(6)], rtol=1e-6)
    # The failure could not be written when it happened and was kept for later.
    assert [(f["step"], f["stage"]) for f in ds.attrs["failures"]] == [(1, "write")]
    assert "cannot write run.sqlite: attempt to write" in ds.attrs["failures"][0]["message"]


def test_a_full_disk_does_not_stop_the_training(tmp_path):
    recorder = recorder_at(tmp_path / "run", weights(repeat=20_000), background=False)
    recorder(0, state(0))
    connection = recorder._journal.store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    with pytest.warns(RecordingWarning, match="disk is full; free some disk space"):
        recorder(1, state(1))
    recorder(2, state(2))
    report = recorder.finish(state(3))
    assert (report.records, report.failures) == (1, 3)
    assert open_run(tmp_path / "run").weights[:, 0, 0].values.tolist() == [1.0]


def test_strict_raises_what_would_be_a_failure(tmp_path):
    recorder = recorder_at(tmp_path / "run", strict=True)
    recorder(0, state(0))
    with pytest.raises(RecordingError, match="ParamsError") as caught:
        recorder(1, WRONG_SHAPE)
    assert isinstance(caught.value.__cause__, ParamsError)
    assert recorder.close().failures == 1
    assert len(open_run(tmp_path / "run").attrs["failures"]) == 1


def test_steps_that_decrease_are_a_failure(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    recorder(5, state(5))
    with pytest.warns(RecordingWarning, match="step 3 comes after step 5.*Count updates over"):
        recorder(3, state(3))
    recorder(6, state(6))
    recorder.close()
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 5, 6]


def test_a_closed_recorder_warns_instead_of_raising(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder.finish(state(0))
    with pytest.warns(RecordingWarning, match="recorder is closed"):
        recorder(1, state(1))
    assert recorder.finish(state(1)).failures == 1
    assert recorder.close().status == "finished"
    assert open_run(tmp_path / "run").step.values.tolist() == [0]


def test_a_finished_run_can_be_finished_again_and_stays_as_it_is(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    first = recorder.finish(state(0))
    assert recorder.finish(state(5), step=5) == first
    assert open_run(tmp_path / "run").attrs["failures"] == []


def test_an_exception_in_the_loop_marks_the_run_interrupted_and_keeps_the_records(tmp_path):
    def loop():
        with recorder_at(tmp_path / "run") as recorder:
            train(recorder, 0, 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    ds = open_run(tmp_path / "run")
    assert ds.attrs["status"] == "interrupted"
    assert ds.attrs["finished"] is False
    assert ds.step.values.tolist() == [0, 1, 2]


def test_a_run_that_was_not_finished_is_called_closed(tmp_path):
    with recorder_at(tmp_path / "run") as recorder:
        train(recorder, 0, 2)
    assert open_run(tmp_path / "run").attrs["status"] == "closed"


def test_a_recorder_that_is_dropped_lets_go_of_the_file(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    del recorder
    assert open_run(tmp_path / "run").attrs["status"] == "closed"
    recorder_at(tmp_path / "run", resume=True).close()


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with recorder_at(tmp_path / "run") as recorder:
        train(recorder, 0, 2)
        report = recorder.finish(state(2))
    assert report == (None, 3, 0, "finished", 0)
    assert list(tmp_path.iterdir()) == []


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "part"),
    [
        ({"what": []}, CollectorError, "collectors is empty"),
        ({"what": [3]}, CollectorError, "3 is not a Collector"),
        ({"what": collectors.ntk_spectrum}, CollectorError, "call it, with parentheses"),
        (
            {"what": [collectors.param_norm(), collectors.param_norm()]},
            DuplicateNameError,
            "two collectors are named 'param_norm'",
        ),
        ({"what": weight_mean(at=10)}, ScheduleError, r"'weight_mean' must be a RecordAt, got 10"),
        ({"at": 10}, ScheduleError, r"at must be a RecordAt, got 10; write RecordAt.every\(10\)"),
        ({"at": [1, 2]}, ScheduleError, r"got \[1, 2\]"),
        ({"config": {"f": print}}, StoreError, r"config\.f is a builtin_function.*its name"),
        ({"config": {"a": [1, {2: object}]}}, StoreError, r"config\.a\[1\]\.2 is a type"),
        ({"resume": "yes"}, RecordingError, "resume must be True, False or 'takeover'"),
        ({"seed": "seven"}, RecordingError, "seed must be an integer"),
        ({"seed": [1, 2], "members": 3}, RecordingError, "2 seeds were given for members=3"),
        ({"model": 17}, ModelError, "as_model was given"),
        ({"path": ""}, StoreError, "'runs/first'"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once_and_leaves_no_file(tmp_path, options, error, part):
    usual = {"path": tmp_path / "run", "model": MODEL, "what": weight_mean(), "at": EVERY}
    given = usual | options
    path, model, what = given.pop("path"), given.pop("model"), given.pop("what")
    with pytest.raises(error, match=part):
        Recorder(path, model, PROBE, what, **given)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_is_refused_at_once(tmp_path):
    recorder_at(tmp_path / "run").finish(state(0))
    with pytest.raises(ExistingRunError):
        recorder_at(tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "probe", "what", "call", "error", "part"),
    [
        (
            MODEL,
            Probe(np.eye(3, dtype=np.float32)),
            collectors.loss("mse"),
            (0, state(0)),
            MissingTargetsError,
            "needs targets",
        ),
        (MODEL, PROBE, collectors.ntk_spectrum(head="actor"), (0, state(0)), HeadError, "actor"),
        (
            MODEL,
            Probe(np.eye(4, dtype=np.float32)),
            weight_mean(),
            (0, state(0)),
            ProbeError,
            "fails on",
        ),
        (
            MODEL,
            PROBE,
            weight_mean(extras=("bonus",)),
            (0, state(0)),
            MissingExtraError,
            r"bonus",
        ),
        (MODEL, PROBE, weight_mean("seed"), (0, state(0)), CollectorError, "names of axes"),
        (MODEL, PROBE, weight_mean(), (-1, state(0)), RecordingError, "got -1"),
        (MODEL, PROBE, weight_mean(), (1.0, state(0)), RecordingError, "got 1.0"),
        (MODEL, PROBE, weight_mean(), ("0", state(0)), RecordingError, "got '0'"),
        (MODEL, [], weight_mean(), (0, state(0)), NtkStatsError, "Probe"),
    ],
)
def test_what_does_not_fit_together_is_raised_at_the_first_call(
    tmp_path, model, probe, what, call, error, part
):
    recorder = Recorder(tmp_path / "run", model, probe, what, at=EVERY)
    with pytest.raises(error, match=part):
        recorder(*call)
    assert recorder.close().records == 0


def test_a_first_call_that_raised_can_be_repeated_properly(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    with pytest.raises(RecordingError):
        recorder(-1, state(0))
    recorder(0, state(0))
    assert recorder.close()[1:] == (1, 0, "closed", 0)


@pytest.mark.parametrize("transform", ["jit", "scan", "vmap"])
def test_a_call_inside_a_trace_is_refused_with_the_way_out(tmp_path, transform):
    recorder = recorder_at(tmp_path / "run")

    def body(params):
        recorder(0, params)
        return params

    traced = {
        "jit": lambda: jax.jit(body)(state(0)),
        "scan": lambda: jax.lax.scan(lambda p, _: (body(p), None), state(0), length=2),
        "vmap": lambda: jax.vmap(body)(state(0, members=2)),
    }
    with pytest.raises(RecordingError, match=r"while JAX traces.*recorder.extend"):
        traced[transform]()
    recorder.close()


def test_a_traced_step_is_refused(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    with pytest.raises(RecordingError, match="step must be"):
        jax.jit(lambda step: recorder(step, state(0)))(0)
    recorder.close()


def test_the_database_holds_one_row_a_record(tmp_path):
    with recorder_at(tmp_path / "run", [weight_mean(), weights(at=RecordAt.every(2))]) as recorder:
        train(recorder, 0, 3)
    connection = sqlite3.connect(tmp_path / "run.sqlite")
    rows = connection.execute("SELECT step, axes FROM records ORDER BY step").fetchall()
    connection.close()
    assert [(s, json.loads(a)) for s, a in rows] == [
        (0, ["step", "step_every_2"]),
        (1, ["step"]),
        (2, ["step", "step_every_2"]),
    ]


def test_a_clock_that_jumps_changes_no_record(tmp_path, monkeypatch):
    moments = iter([1e9, 5e9, 3.0, -7.0, 2e9, 2e9])
    recorder = recorder_at(tmp_path / "run")
    monkeypatch.setattr("ntkstats.recording.live._session.time.time", lambda: next(moments, 0.0))
    train(recorder, 0, 5)
    recorder.finish(state(5))
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == list(range(6))
    np.testing.assert_array_equal(ds.weight_mean, np.arange(1, 7))
    assert (ds.record_seconds >= 0).all()
    assert ds.attrs["status"] == "finished"
