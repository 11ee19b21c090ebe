"""Records that are written in the background: complete, in order, and never later than the end."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import collectors
from ntkstats.errors import RecordingWarning
from ntkstats.models import as_model
from ntkstats.recording import RecordAt, Recorder, open_run
from ntkstats.recording.live._outbox import _MEASURING, _WAITING
from ntkstats.recording.store._store import Store
from tests.recording.helpers import MODEL, PROBE, state, train, weight_mean, weights

EVERY = RecordAt.every(1)


def recorder_at(path, what=None, **options):
    return Recorder(path, MODEL, PROBE, what or weight_mean(), **{"at": EVERY, **options})


def record_and_wait(recorder, step, params):
    recorder(step, params)
    recorder.flush()


def unsaid_until(recorder, step, later):
    """Record; what becomes of the first record is known, and may be said, at the second."""
    recorder(step, state(step))
    recorder._outbox.drain()
    recorder(later, state(later))


class Disk:
    """A disk that is slow, or stands still until it is let go; counts the rows it takes."""

    def __init__(self, monkeypatch, *, seconds=0.0):
        self.go = threading.Event()
        self.go.set()
        self.transactions = []
        plain = Store.write

        def write(store, rows=(), **rest):
            self.go.wait(20)
            time.sleep(seconds)
            plain(store, rows, **rest)
            self.transactions.append([row.step for row in rows])

        monkeypatch.setattr(Store, "write", write)


def test_the_loop_goes_on_while_the_disk_is_slow_and_nothing_is_lost(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    disk.go.clear()
    train(recorder, 1, 1 + _WAITING)  # returns: nothing of this is on disk
    assert open_run(tmp_path / "run").step.values.tolist() == [0]
    disk.go.set()
    train(recorder, 1 + _WAITING, 30)
    assert recorder.flush().records == 30
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == list(range(30))
    np.testing.assert_array_equal(ds.weight_mean, np.arange(1, 31))
    recorder.close()
    written = [step for steps in disk.transactions for step in steps]
    assert written == list(range(30))  # in order, each once


def test_records_that_wait_go_into_one_transaction(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    disk.go.clear()
    train(recorder, 1, 6)
    disk.go.set()
    recorder.close()
    assert disk.transactions[0] == [0]
    assert len([steps for steps in disk.transactions if steps]) <= 3


def test_the_queue_is_bounded(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    recorder(1, state(1))
    recorder.flush()  # compiled: from here on calls are quick
    disk.go.clear()
    called = []

    def loop():
        for step in range(2, 100):
            recorder(step, state(step))
            called.append(step)

    thread = threading.Thread(target=loop)
    thread.start()
    time.sleep(1.0)
    assert _WAITING <= len(called) <= _WAITING + 2  # one is being written
    disk.go.set()
    thread.join(60)
    assert not thread.is_alive()
    assert recorder.close().records == 100


def slow_collector(seconds, on_step=lambda step: None):
    """The mean weight, by way of the host, which takes its time and may fail."""

    def on_host(step, value):
        time.sleep(seconds)
        on_step(int(step))
        return value

    def measure(moment, carry):
        value = moment.snapshot.params["w"].mean()
        shape = jax.ShapeDtypeStruct((), value.dtype)
        return carry, {"slow": jax.pure_callback(on_host, shape, moment.snapshot.step, value)}

    def labels(binding, head):
        return {"slow": collectors.Label("mean weight")}

    return collectors.Collector("slow", measure, labels, uses_head=False)


def test_a_state_may_be_donated_and_changed_in_place_while_it_is_being_measured(tmp_path):
    step_fn = jax.jit(lambda p: jax.tree.map(lambda w: w + 1, p), donate_argnums=0)
    params = jax.tree.map(jnp.copy, state(0))
    noted = np.zeros(())
    with recorder_at(tmp_path / "run", [slow_collector(0.05), weights()]) as recorder:
        for step in range(6):
            noted[...] = step
            recorder(step, params, noted=noted, first=params["w"][0, 0])
            params = step_fn(params)
            noted[...] = -1
    ds = open_run(tmp_path / "run")
    np.testing.assert_array_equal(ds.slow, np.arange(1, 7))
    np.testing.assert_array_equal(ds.weights[:, 0, 0], np.arange(1, 7))
    np.testing.assert_array_equal(ds["first"], np.arange(1, 7))
    np.testing.assert_array_equal(ds.noted, np.arange(6))


def test_numpy_parameters_may_be_changed_in_place_after_the_call(tmp_path):
    params = {"w": np.ones((3, 2), np.float32)}
    with recorder_at(tmp_path / "run", [slow_collector(0.05), weights()]) as recorder:
        for step in range(5):
            recorder(step, params)
            params["w"] += 1
    np.testing.assert_array_equal(open_run(tmp_path / "run").slow, np.arange(1, 6))


def test_what_is_lost_in_the_background_is_said_at_the_next_call(tmp_path):
    def fail_at_two(step):
        if step == 2:
            raise ValueError("boom")

    what = [slow_collector(0.0, fail_at_two), collectors.param_distance()]
    recorder = recorder_at(tmp_path / "run", what)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(recorder, 0, 2)
        recorder.flush()
    with pytest.warns(RecordingWarning, match="(?s)could not measure at step 2.*boom") as caught:
        unsaid_until(recorder, 2, 3)
    assert caught[0].filename == __file__
    recorder(4, state(4))
    report = recorder.close()
    assert (report.records, report.failures) == (4, 1)
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(ds.param_distance, np.sqrt(6) * np.array([0, 1, 3, 4]), rtol=1e-6)
    assert [(f["step"], f["stage"]) for f in ds.attrs["failures"]] == [(2, "measure")]


def test_what_collectors_remember_goes_back_to_the_last_record_that_is_stored(tmp_path):
    """A kernel is compared with that of the last record in the file, not with a lost one."""

    def fail_at_two(step):
        if step == 2:
            raise ValueError("boom")

    def scaled(step):
        return {"w": jnp.full((3, 2), 0.5) * (1.0 + step)}

    model = as_model(lambda p, x: jnp.tanh(x @ p["w"]))
    what = [slow_collector(0.0, fail_at_two), collectors.kernel_velocity()]
    with Recorder(tmp_path / "run", model, PROBE, what, at=EVERY) as recorder:
        recorder(0, scaled(0))
        recorder(1, scaled(1))
        recorder.flush()
        with pytest.warns(RecordingWarning, match="at step 2"):
            record_and_wait(recorder, 2, scaled(2))
        recorder(3, scaled(3))
    with Recorder(tmp_path / "same", model, PROBE, what[1], at=EVERY) as recorder:
        for step in (0, 1, 3):
            recorder(step, scaled(step))
    ds, same = open_run(tmp_path / "run"), open_run(tmp_path / "same")
    for name in same.data_vars:
        np.testing.assert_array_equal(ds[name], same[name])


def test_a_disk_that_is_full_in_the_background_is_said_once_and_later_records_are_kept(tmp_path):
    recorder = recorder_at(tmp_path / "run", weights(repeat=20_000))
    recorder(0, state(0))
    connection = recorder._journal.store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    with pytest.warns(RecordingWarning, match="disk is full; free some disk space"):
        record_and_wait(recorder, 1, state(1))
    connection.execute("PRAGMA max_page_count = 1000000").fetchone()
    recorder(2, state(2))
    assert recorder.finish(state(3)) == (tmp_path / "run.sqlite", 3, 1, "finished", 0)
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 2, 3]
    assert [f["step"] for f in ds.attrs["failures"]] == [1]


def test_one_record_that_cannot_be_written_does_not_take_its_neighbours_along(
    tmp_path, monkeypatch
):
    disk = Disk(monkeypatch)
    slow_or_not = Store._add_row

    def add_row(store, row):
        if row.step == 3:
            raise OSError("this one not")
        slow_or_not(store, row)

    monkeypatch.setattr(Store, "_add_row", add_row)
    recorder = recorder_at(tmp_path / "run")
    recorder(0, state(0))
    disk.go.clear()
    train(recorder, 1, 6)  # 2 to 5 wait together
    disk.go.set()
    with pytest.warns(RecordingWarning, match="could not write at step 3"):
        recorder.flush()
    recorder(6, state(6))
    recorder.close()
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 1, 2, 4, 5, 6]


def test_mirrors_are_told_in_order_by_one_thread_and_closed_after_the_last_record(tmp_path):
    class Sink:
        def __init__(self):
            self.calls, self.threads = [], set()

        def write(self, step, values):
            self.calls.append((step, values["weight_mean"]))
            self.threads.add(threading.current_thread())
            time.sleep(0.01)

        def flush(self):
            self.calls.append("flush")

        def close(self):
            self.calls.append("close")

    sink = Sink()
    with recorder_at(tmp_path / "run", sinks=[sink]) as recorder:
        train(recorder, 0, 20)
    assert sink.calls == [*((i, i + 1.0) for i in range(20)), "flush", "close"]
    assert len(sink.threads - {threading.main_thread()}) == 1


def test_a_recorder_that_is_dropped_has_written_everything(tmp_path, monkeypatch):
    Disk(monkeypatch, seconds=0.02)
    recorder = recorder_at(tmp_path / "run")
    train(recorder, 0, 12)
    del recorder
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == list(range(12))
    assert ds.attrs["status"] == "closed"


def test_a_due_call_is_traced_once_and_never_again(tmp_path):
    traces = []
    with recorder_at(tmp_path / "run", weight_mean(on_trace=lambda: traces.append(1))) as recorder:
        train(recorder, 0, 2)
        seen = len(traces)
        train(recorder, 2, 30)
    assert len(traces) == seen


CHILD = """
import sys, time
from ntkstats.recording import RecordAt, Recorder
from ntkstats.recording.store._store import Store
from tests.recording.helpers import MODEL, PROBE, state, weight_mean
plain = Store.write
def write(store, rows=(), **rest):
    time.sleep(0.05)
    plain(store, rows, **rest)
Store.write = write
recorder = Recorder(sys.argv[1], MODEL, PROBE, weight_mean(), at=RecordAt.every(1))
step = 0
while sys.argv[2] == "for ever" or step < 30:
    recorder(step, state(step))
    if step % 10 == 0:
        print(step, flush=True)
    step += 1
if sys.argv[2] == "exit":
    sys.exit(3)
if sys.argv[2] == "raise":
    raise ValueError("the loop broke")
"""


def child(path, how):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("exit", 3), ("raise", 1)])
def test_nothing_is_lost_when_the_interpreter_ends_without_closing_the_run(tmp_path, how, code):
    process = child(tmp_path / "run", how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == list(range(30))
    assert ds.attrs["status"] == "closed"


def test_nothing_is_lost_on_keyboard_interrupt(tmp_path):
    process = child(tmp_path / "run", "for ever")
    seen = -1
    while seen < 30:
        seen = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    seen = int((rest.split() or [seen])[-1])
    ds = open_run(tmp_path / "run")
    steps = ds.step.values.tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) > seen
    assert ds.attrs["status"] == "closed"


def test_the_device_is_at_most_a_few_records_behind(tmp_path):
    running, most = [0], [0]
    lock = threading.Lock()

    def on_step(step):
        with lock:
            running[0] -= 1

    recorder = recorder_at(tmp_path / "run", slow_collector(0.03, on_step))
    for step in range(10):
        with lock:
            running[0] += 1
        recorder(step, state(step))
        with lock:
            most[0] = max(most[0], running[0])
    recorder.close()
    assert most[0] <= _MEASURING + 1


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_a_forked_child_leaves_the_run_to_its_parent(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    train(recorder, 0, 3)
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            recorder(3, state(30))
            recorder.flush()
            recorder.finish(state(40))
        os._exit(0 if any("is a fork of it" in str(w.message) for w in said) else 1)
    assert os.waitpid(child, 0)[1] == 0
    train(recorder, 3, 5)
    assert recorder.finish(state(5)).failures == 0
    np.testing.assert_array_equal(open_run(tmp_path / "run").weight_mean, np.arange(1, 7))
