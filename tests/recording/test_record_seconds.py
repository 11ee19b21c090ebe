"""How long a record took."""

import time

import jax
import pytest

from ntkstats.recording import RecordAt, Recorder, open_run
from ntkstats.recording.live import _outbox
from tests.recording.helpers import MODEL, PROBE, train, weight_mean


def test_the_time_of_a_record_leaves_out_the_wait_for_others(tmp_path, monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("an accelerator is not waited for")
    monkeypatch.setattr(_outbox, "_GATHER", 0.6)
    recorder = Recorder(tmp_path / "run", MODEL, PROBE, weight_mean(), at=RecordAt.every(1))
    for first in (0, 2, 4):
        train(recorder, first, first + 2)
        time.sleep(0.7)
    recorder.close()
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == list(range(6))
    assert ds.record_seconds.values[1:].max() < 0.5
