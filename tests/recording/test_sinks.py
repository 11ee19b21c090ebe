"""Mirrors of the scalars."""

import logging
import warnings

import numpy as np
import pytest

from ntkstats.errors import RecordingWarning
from ntkstats.recording import CSVSink, LogSink, RecordAt, Recorder, Sink, open_run
from tests.recording.helpers import MODEL, PROBE, state, train, weight_mean, weights


class Memory:
    """Keeps everything; fails from a given step on."""

    def __init__(self, fail_from=None):
        self.written, self.calls, self.fail_from = [], [], fail_from

    def write(self, step, values):
        if self.fail_from is not None and step >= self.fail_from:
            msg = "no connection"
            raise ConnectionError(msg)
        self.written.append((step, values))

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")


def recorder_at(path, *sinks, what=None, **options):
    options = {"at": RecordAt.every(1), "sinks": sinks, **options}
    return Recorder(path, MODEL, PROBE, what or weight_mean(), **options)


def test_every_shipped_sink_keeps_the_protocol(tmp_path):
    table = CSVSink(tmp_path / "a.csv")
    assert all(isinstance(sink, Sink) for sink in (LogSink(), table, Memory()))
    table.close()


def test_a_sink_gets_the_scalars_of_each_record(tmp_path):
    memory = Memory()
    with recorder_at(tmp_path / "run", memory, what=[weight_mean(), weights()]) as recorder:
        recorder(0, state(0), loss=2.5)
        recorder.finish(state(1))
    assert memory.written == [(0, {"weight_mean": 1.0, "loss": 2.5}), (1, {"weight_mean": 2.0})]
    assert all(type(v) is float for _, values in memory.written for v in values.values())
    assert memory.calls == ["flush", "close"]


def test_a_sink_gets_one_number_for_each_member(tmp_path):
    memory = Memory()
    options = {"what": [weight_mean(), weights()], "members": 2}
    with recorder_at(tmp_path / "run", memory, **options) as recorder:
        recorder(0, state(0, members=2), loss=np.array([3.0, 4.0]), lr=0.1)
    ((_, values),) = memory.written
    assert values == {
        "weight_mean/0": 1.0,
        "weight_mean/1": 101.0,
        "loss/0": 3.0,
        "loss/1": 4.0,
        "lr": 0.1,
    }


def test_a_failing_sink_warns_once_and_the_run_and_other_sinks_go_on(tmp_path):
    broken, sound = Memory(fail_from=1), Memory()
    with recorder_at(tmp_path / "run", broken, sound, strict=True) as recorder:
        recorder(0, state(0))
        with pytest.warns(RecordingWarning, match=r"Memory.write failed .* no connection"):
            recorder(1, state(1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(recorder, 2, 4)
    assert [step for step, _ in broken.written] == [0]
    assert [step for step, _ in sound.written] == [0, 1, 2, 3]
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 1, 2, 3]
    assert ds.attrs["failures"] == []


def test_two_failing_sinks_each_warn(tmp_path):
    recorder = recorder_at(tmp_path / "run", Memory(0), Memory(0))
    with pytest.warns(RecordingWarning) as caught:
        recorder(0, state(0))
    assert len(caught) == 2
    recorder.close()


def test_the_log_has_one_line_a_record(tmp_path, caplog):
    with (
        caplog.at_level(logging.INFO, logger="ntkstats"),
        recorder_at(tmp_path / "run", LogSink(digits=3)) as recorder,
    ):
        recorder(0, state(0), loss=1 / 3)
    assert [r.getMessage() for r in caplog.records] == ["step 0  weight_mean 1  loss 0.333"]


def test_a_csv_file_is_current_after_every_record_and_continued_later(tmp_path):
    path = tmp_path / "logs" / "scalars.csv"
    with recorder_at(tmp_path / "a", CSVSink(path)) as recorder:
        recorder(0, state(0), loss=0.1)
        assert path.read_text().splitlines() == [
            "step,name,value",
            "0,weight_mean,1.0",
            "0,loss,0.1",
        ]
    with recorder_at(tmp_path / "b", CSVSink(path)) as recorder:
        recorder(1, state(1))
    assert path.read_text().splitlines()[3:] == ["1,weight_mean,2.0"]
