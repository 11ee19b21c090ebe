"""Runs whose process is killed with SIGKILL at a random moment."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from ntkstats.errors import StoreError
from ntkstats.recording import RecordAt, Recorder, list_runs, open_run
from ntkstats.recording.live._outbox import _MEASURING, _WAITING
from tests.recording.helpers import MODEL, PROBE, state, weight_mean, weights


@contextmanager
def recording_child(path, step, *, flush=True):
    """A process that records from `step` on and is killed at the end of the block.

    Gives the process and the list to which the steps that it has promised are added.
    """
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.recording.crash_child", str(path), str(step)),
            *(["flush"] if flush else []),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
    )
    promised = []

    def listen():
        # A line that the kill cut short was not promised yet.
        promised.extend(int(line) for line in child.stdout if line.endswith("\n"))

    listener = threading.Thread(target=listen)
    try:
        first = int(child.stdout.readline() or -1)
        assert first == step, child.stderr.read()
        promised.append(first)
        listener.start()
        yield child, promised
    finally:
        child.kill()
        child.wait()
        if listener.ident is not None:
            listener.join()
        child.stdout.close()
        child.stderr.close()


def check(path, promised):
    """Every promised record is there and whole, and so is whatever else is there."""
    connection = sqlite3.connect(path.with_suffix(".sqlite"))
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    ds = open_run(path)
    steps = ds.step.values
    assert set(promised) <= set(steps.tolist())
    assert steps.tolist() == list(range(len(steps)))
    assert len(steps) <= promised[-1] + 2 + _WAITING + _MEASURING
    np.testing.assert_array_equal(ds.weight_mean, steps + 1)
    np.testing.assert_array_equal(ds.loss, steps)
    assert (ds.weights == ds.weight_mean).all()
    return ds


def kill_many_times(path, kills, seed):
    moments = random.Random(seed)
    promised = []
    for _ in range(kills):
        start = promised[-1] + 1 if promised else 0
        with recording_child(path, start) as (_, new):
            time.sleep(moments.uniform(0.0, 0.12))
        promised += new
        ds = check(path, promised)
        assert ds.attrs["status"] == "killed"
    return promised


def test_a_run_killed_five_times_holds_every_acknowledged_record(tmp_path):
    promised = kill_many_times(tmp_path / "run", 5, seed=0)
    with Recorder(
        tmp_path / "run",
        MODEL,
        PROBE,
        [weight_mean(), weights(repeat=20_000)],
        at=RecordAt.every(1),
        resume=True,
    ) as recorder:
        recorder.finish(state(promised[-1] + 1), step=promised[-1] + 1, loss=promised[-1] + 1.0)
    ds = check(tmp_path / "run", [*promised, promised[-1] + 1])
    statuses = [attempt["status"] for attempt in ds.attrs["attempts"]]
    assert statuses == ["killed"] * 5 + ["finished"]


def test_a_killed_run_lacks_no_more_than_what_may_wait(tmp_path):
    path = tmp_path / "run"
    with recording_child(path, 0, flush=False) as (_, called):
        while len(called) < 40:
            time.sleep(0.01)
    check(path, [step for step in called if step < called[-1] - _WAITING - _MEASURING])


@pytest.mark.slow
def test_a_run_killed_fifty_times_holds_every_acknowledged_record(tmp_path):
    kill_many_times(tmp_path / "run", 50, seed=1)


def test_a_run_can_be_read_and_not_written_while_another_process_writes_it(tmp_path):
    path = tmp_path / "run"
    with recording_child(path, 0) as (child, promised):
        for _ in range(5):
            so_far = list(promised)
            ds = open_run(path)
            assert set(so_far) <= set(ds.step.values.tolist())
            assert ds.attrs["status"] == "running"
            assert (ds.weights == ds.weight_mean).all()
        assert list_runs(tmp_path)[0].status == "running"
        message = f"written by process {child.pid} on .*wait until it ends"
        with pytest.raises(StoreError, match=message):
            Recorder(path, MODEL, PROBE, weight_mean(), resume=True)
        assert child.poll() is None
    check(path, promised)
