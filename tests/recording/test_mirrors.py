"""Mirrors in other people's formats: what is on disk is what was recorded."""

import importlib
import struct
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import errors
from ntkstats.errors import RecordingWarning
from ntkstats.recording import RecordAt, Recorder, Sink, TensorBoardSink, WandbSink, open_run
from tests.recording.helpers import MODEL, PROBE, state, train, weight_mean


def recorder_at(path, *sinks, **options):
    return Recorder(path, MODEL, PROBE, weight_mean(), at=RecordAt.every(1), sinks=sinks, **options)


# --- TensorBoard ------------------------------------------------------------------------------


@pytest.fixture
def tensorboard():
    return pytest.importorskip("tensorboardX")


def events(folder):
    """All events of a folder in the order in which TensorBoard reads them."""
    pb = importlib.import_module("tensorboardX.proto.event_pb2")
    found = []
    for file in sorted(folder.glob("*tfevents*")):
        data, position = file.read_bytes(), 0
        while position < len(data):  # length, its checksum, event, its checksum
            (size,) = struct.unpack_from("<Q", data, position)
            found.append(pb.Event.FromString(data[position + 12 : position + 12 + size]))
            position += 12 + size + 4
    return found


def shown(folder):
    """``{(tag, step): values}`` after the restarts that the files mark."""
    points = []
    for event in events(folder):
        if event.HasField("session_log"):
            points = [p for p in points if p[1] < event.step]
        points += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    table = {}
    for tag, step, value in points:
        table.setdefault((tag, step), []).append(value)
    return table


def test_an_event_file_holds_the_scalars_of_each_record(tensorboard, tmp_path):
    sink = TensorBoardSink(tmp_path / "board")
    assert isinstance(sink, Sink)
    with recorder_at(tmp_path / "run", sink) as recorder:
        train(recorder, 0, 3, loss=lambda step: jnp.float32(0.1 * step))
        recorder.flush()
        assert len(shown(tmp_path / "board")) == 6  # on disk while the run goes on
        recorder.finish(state(3))
    expected = {("weight_mean", i): [1.0 + i] for i in range(4)}
    expected |= {("loss", i): [np.float32(0.1 * i)] for i in range(3)}
    assert shown(tmp_path / "board") == expected


def test_members_are_one_group_of_tags(tensorboard, tmp_path):
    with recorder_at(tmp_path / "run", TensorBoardSink(tmp_path / "board"), members=2) as recorder:
        recorder(0, state(0, members=2))
    assert shown(tmp_path / "board") == {("weight_mean/0", 0): [1.0], ("weight_mean/1", 0): [101.0]}


def test_a_resumed_run_shows_no_point_twice(tensorboard, tmp_path):
    board = tmp_path / "board"
    with recorder_at(tmp_path / "run", TensorBoardSink(board)) as recorder:
        train(recorder, 0, 5)
    first = {file: file.read_bytes() for file in board.iterdir()}
    with recorder_at(tmp_path / "run", TensorBoardSink(board), resume=True) as recorder:
        for step in range(3, 7):
            recorder(step, state(step + 10))
    points = shown(board)
    assert all(len(values) == 1 for values in points.values())
    stored = open_run(tmp_path / "run")
    mirrored = [points["weight_mean", int(step)][0] for step in stored.step]
    np.testing.assert_array_equal(mirrored, stored.weight_mean)
    assert all(file.read_bytes() == data for file, data in first.items())


def test_tensorboard_itself_reads_the_same(tensorboard, tmp_path):
    pytest.importorskip("tensorboard")
    accumulators = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    for start, stop in ((0, 5), (3, 7)):
        sink = TensorBoardSink(tmp_path)
        for step in range(start, stop):
            sink.write(step, {"loss": 10.0 * start + step})
        sink.close()
    read = accumulators.EventAccumulator(str(tmp_path)).Reload()
    points = [(e.step, e.value) for e in read.Scalars("loss")]
    assert points == [(0, 0), (1, 1), (2, 2), (3, 33), (4, 34), (5, 35), (6, 36)]


def test_an_unused_mirror_leaves_nothing_behind(tensorboard, tmp_path):
    sink = TensorBoardSink(tmp_path / "board")
    sink.flush()
    sink.close()
    assert not (tmp_path / "board").exists()


def test_a_folder_that_cannot_be_written_is_warned_about_once(tensorboard, tmp_path):
    (tmp_path / "board").write_text("a file where the folder should be")
    with recorder_at(tmp_path / "run", TensorBoardSink(tmp_path / "board")) as recorder:
        with pytest.warns(RecordingWarning, match="TensorBoardSink.write failed") as caught:
            train(recorder, 0, 3)
        assert len(caught) == 1
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 1, 2]


# --- Weights & Biases -------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """The package, told not to talk to anybody."""
    package = pytest.importorskip("wandb")
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_DIR": str(tmp_path),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_DATA_DIR": str(tmp_path / "data"),
        "WANDB_X_DISABLE_STATS": "true",
        "WANDB_ERROR_REPORTING": "false",
    }.items():
        monkeypatch.setenv(name, value)
    yield package
    package.teardown()


BLOCK = 1 << 15
WHOLE_OR_LAST = (1, 4)


def logged(folder):
    """``[{step: {name: value}}]``, one for each finished offline run, oldest first."""
    files = folder.glob("wandb/offline-run-*/run-*.wandb")
    return [rows_of(file) for file in sorted(files, key=lambda f: f.stat().st_mtime)]


def rows_of(file):
    """Rows of one run; its process writes them a moment after ``finish`` has returned."""
    deadline = time.monotonic() + 20
    while not any(r.WhichOneof("record_type") == "exit" for r in records(file.read_bytes())):
        assert time.monotonic() < deadline, f"{file} is not complete"
        time.sleep(0.02)
    rows = {}
    for record in records(file.read_bytes()):
        items = {"".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        if items:
            mine = {k: float(v) for k, v in items.items() if not k.startswith("_")}
            rows[int(items["_step"])] = mine
    return rows


def records(data):
    """Protocol buffers from a log in LevelDB's format.

    It consists of blocks of 32 KiB that hold records in pieces, each behind a checksum, a length
    and its kind.
    """
    pb = importlib.import_module("wandb.proto.wandb_internal_pb2")
    position, parts, found = 7, b"", []
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in WHOLE_OR_LAST:
            found.append(pb.Record.FromString(parts))
            parts = b""
    return found


def test_an_offline_run_holds_the_scalars_of_each_record(wandb, tmp_path):
    sink = WandbSink("tests", mode="offline", dir=str(tmp_path))
    assert isinstance(sink, Sink)
    with recorder_at(tmp_path / "run", sink) as recorder:
        train(recorder, 0, 3, loss=lambda step: jnp.float32(0.5 * step))
        recorder.finish(state(7), step=7)
    (rows,) = logged(tmp_path)
    assert rows == {
        0: {"weight_mean": 1.0, "loss": 0.0},
        1: {"weight_mean": 2.0, "loss": 0.5},
        2: {"weight_mean": 3.0, "loss": 1.0},
        7: {"weight_mean": 8.0},
    }
    assert wandb.run is None


def test_a_resumed_run_is_a_second_wandb_run(wandb, tmp_path):
    options = {"mode": "offline", "dir": str(tmp_path), "group": "one"}
    for start, stop in ((0, 3), (2, 4)):
        sink = WandbSink("tests", **options)
        with recorder_at(tmp_path / "run", sink, resume=True) as recorder:
            train(recorder, start, stop)
    assert [sorted(rows) for rows in logged(tmp_path)] == [[0, 1, 2], [2, 3]]


def test_a_shared_run_is_not_finished_and_its_rows_are_merged(wandb, tmp_path):
    with wandb.init(project="tests", mode="offline", dir=str(tmp_path)) as run:
        with recorder_at(tmp_path / "run", WandbSink(run=run)) as recorder:
            for step in range(2):
                recorder(step, state(step))
                run.log({"mine": float(step)}, step=step)
        own = WandbSink("tests", mode="offline", dir=str(tmp_path))
        own.write(0, {"a": 1.0})
        own.close()
        run.log({"mine": 2.0}, step=2)  # neither mirror has finished it
    shared = next(rows for rows in logged(tmp_path) if len(rows) == 3)
    assert shared == {
        0: {"weight_mean": 1.0, "mine": 0.0},
        1: {"weight_mean": 2.0, "mine": 1.0},
        2: {"mine": 2.0},
    }


class FakeRun:
    """A W&B run that is further on than the recorder."""

    step = 10

    def log(self, values, **options):
        pytest.fail("a step in the past was logged")


def test_steps_in_the_past_are_warned_about_once(wandb, tmp_path):
    with (
        recorder_at(tmp_path / "run", WandbSink(run=FakeRun())) as recorder,
        pytest.warns(RecordingWarning, match="step 0 .* at step 10") as caught,
    ):
        train(recorder, 0, 3)
    assert len(caught) == 1
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 1, 2]


def test_a_run_that_cannot_be_opened_is_tried_once(wandb, tmp_path, monkeypatch):
    tries = []

    def refuse(**options):
        tries.append(options)
        msg = "no account"
        raise ConnectionError(msg)

    monkeypatch.setattr(wandb, "init", refuse)
    with (
        recorder_at(tmp_path / "run", WandbSink("tests")) as recorder,
        pytest.warns(RecordingWarning, match="no account") as caught,
    ):
        train(recorder, 0, 3)
    assert (len(caught), len(tries)) == (1, 1)
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 1, 2]


def test_a_run_and_options_for_another_are_refused(wandb):
    with pytest.raises(errors.RecordingError, match="project"):
        WandbSink("tests", run=FakeRun())


# --- missing packages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "extra", "make"),
    [
        ("tensorboardX", "tensorboard", lambda path: TensorBoardSink(path)),
        ("wandb", "wandb", lambda path: WandbSink("tests")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package, extra, make, tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    with pytest.raises(errors.DependencyError) as caught:
        make(tmp_path)
    assert package in str(caught.value)
    assert f'pip install "ntkstats[{extra}]"' in str(caught.value)
    assert isinstance(caught.value, ImportError)
