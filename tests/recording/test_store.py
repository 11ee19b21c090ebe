"""The file of a run: transactions, locks, damage, versions."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ntkstats.errors import (
    ExistingRunError,
    RunNotFoundError,
    SchemaVersionError,
    StoreError,
)
from ntkstats.recording import open_run
from ntkstats.recording.store import _arrays, _schema
from ntkstats.recording.store._store import Store, failure, store_path
from tests.recording.stores import begun, row, steps_in

# --- arrays -----------------------------------------------------------------------------------


@given(
    hnp.arrays(
        st.sampled_from(
            [np.float32, np.float64, np.int64, np.uint8, np.bool_, np.complex64, ">f8"]
        ),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    )
)
def test_arrays_come_back_bit_for_bit(array):
    parts = list(_arrays.encode(array))
    back = _arrays.decode(parts[0][1], parts[0][2], [bytes(part[-1]) for part in parts])
    assert back.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, array)


def test_a_large_array_is_stored_in_several_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(_arrays, "PART_BYTES", 5)
    store = begun(tmp_path / "run")
    store.write([row(2)])
    store.end("finished")
    connection = sqlite3.connect(store.path)
    parts = connection.execute("SELECT part, length(data) FROM arrays").fetchall()
    connection.close()
    assert parts == [(0, 5), (1, 5), (2, 2)]
    np.testing.assert_array_equal(open_run(store.path).value[0], [2, 2, 2])


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (ml_dtypes.bfloat16, np.float32),
        (ml_dtypes.float8_e4m3fn, np.float32),
        (ml_dtypes.int4, np.int32),
        (np.float16, np.float16),
    ],
)
def test_formats_foreign_to_numpy_are_widened_without_loss(dtype, stored):
    array = np.array([1.0, -2.0, 0.5]).astype(dtype)
    widened = _arrays.to_numpy("a", array)
    assert widened.dtype == stored
    np.testing.assert_array_equal(widened.astype(dtype), array)


def test_what_is_no_number_cannot_be_stored():
    with pytest.raises(StoreError, match="'a' has dtype"):
        _arrays.to_numpy("a", np.array(["text"]))
    with pytest.raises(StoreError, match="only numbers"):
        _arrays.to_numpy("a", np.array([object()]))


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("runs/mine", "runs/mine.sqlite"),
        ("runs/mine.sqlite", "runs/mine.sqlite"),
        ("runs/lr0.1", "runs/lr0.1.sqlite"),
        (Path("runs") / "mine.db", "runs/mine.db.sqlite"),
        ("~/mine", str(Path.home() / "mine.sqlite")),
    ],
)
def test_the_file_is_the_path_with_one_suffix(given, file):
    assert store_path(given) == Path(file)


@pytest.mark.parametrize("given", ["", 3, None, ".", "/"])
def test_a_path_that_names_no_run_is_refused(given):
    with pytest.raises(StoreError, match="'runs/first'"):
        store_path(given)


def test_a_name_may_hold_any_character(tmp_path):
    store = begun(tmp_path / "lr=1e-3 #1? 100% é")
    store.write([row(0)])
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["lr=1e-3 #1? 100% é.sqlite"]
    assert steps_in(store.path) == [0]


def test_missing_folders_are_made(tmp_path):
    store = begun(tmp_path / "a" / "b" / "run")
    assert (tmp_path / "a" / "b" / "run.sqlite").is_file()
    store.close()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot create .*check that its folder exists"):
        Store(tmp_path / "runs" / "mine")


def test_a_path_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "mine.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"mine\.sqlite: unable to open"):
        Store(tmp_path / "mine")


READ_ONLY = """
import os, sys
from ntkstats.errors import StoreError
from ntkstats.recording.store._store import Store
if os.getuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    Store(sys.argv[1])
except StoreError as error:
    print(error)
"""


def test_a_read_only_folder_is_refused():
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, f"{name}/run"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        os.chmod(name, 0o755)
    assert "unable to open database file; check that its folder exists and may be written" in (
        done.stdout
    )


# --- what else may be in the file -------------------------------------------------------------


def foreign(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()


def garbage(path):
    path.write_bytes(b"this was never a database, " * 100)


def truncated(path):
    store = begun(path)
    for step in range(30):
        store.write([row(step)])
    store.end("finished")
    path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (foreign, "is an SQLite database, but not an ntkstats run"),
        (garbage, "not a database; it is not an SQLite file"),
        (truncated, "malformed; the file is damaged"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_is_no_sound_run_is_refused_and_left_alone(tmp_path, make, part, resume):
    path = tmp_path / "run.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=part):
        open_run(path)
    with pytest.raises(StoreError, match=part):
        Store(path, resume=resume)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_run_to_the_writer_and_no_run_to_the_reader(tmp_path):
    path = tmp_path / "run.sqlite"
    path.touch()
    with pytest.raises(RunNotFoundError, match="holds no record yet"):
        open_run(path)
    store = begun(path)
    store.write([row(0)])
    assert steps_in(path) == [0]
    store.close()


def test_an_existing_run_is_never_overwritten(tmp_path):
    store = begun(tmp_path / "run")
    store.write([row(0)])
    store.end("finished")
    before = store.path.read_bytes()
    with pytest.raises(ExistingRunError, match=r"run of 1 records.*resume=True"):
        Store(tmp_path / "run")
    assert store.path.read_bytes() == before


def test_a_run_without_records_makes_room_for_a_new_one(tmp_path):
    store = begun(tmp_path / "run")
    store.write(failures=[failure(0, "measure", ValueError("no"))])
    store.end("interrupted")
    again = Store(tmp_path / "run")
    assert again.stored() is None
    again.close()


def test_two_rows_of_one_step_are_refused_and_the_first_stays(tmp_path):
    store = begun(tmp_path / "run")
    store.write([row(4)])
    with pytest.raises(StoreError, match="UNIQUE"):
        store.write([row(5), row(4)])
    assert steps_in(store.path) == [4]
    store.write([row(5)])
    assert steps_in(store.path) == [4, 5]
    store.close()


# --- versions ---------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    store = begun(tmp_path / "run")
    store.write([row(0)])
    store.end("finished")
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"PRAGMA user_version = {_schema.VERSION + 1}")
    connection.close()
    for attempt in (open_run, lambda path: Store(path, resume=True)):
        with pytest.raises(SchemaVersionError, match="upgrade ntkstats"):
            attempt(store.path)


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """A run that was written two versions ago."""
    store = begun(tmp_path / "run")
    store.write([row(7)])
    store.end("finished")

    def add(column):
        return lambda db: db.execute(f"ALTER TABLE records ADD COLUMN {column} TEXT DEFAULT 'x'")

    now = _schema.VERSION
    monkeypatch.setattr(_schema, "VERSION", now + 2)
    monkeypatch.setattr(_schema, "MIGRATIONS", {now: add("a"), now + 1: add("b")})
    return store.path


def test_an_older_run_is_brought_up_to_date_when_it_is_resumed(old_run):
    Store(old_run, resume=True).close()
    connection = sqlite3.connect(old_run)
    assert connection.execute("SELECT step, a, b FROM records").fetchall() == [(7, "x", "x")]
    assert connection.execute("PRAGMA user_version").fetchone()[0] == _schema.VERSION
    connection.close()


def test_an_older_run_is_read_without_changing_the_file(old_run):
    before = old_run.read_bytes()
    assert steps_in(old_run) == [7]
    assert old_run.read_bytes() == before


def test_every_older_version_has_a_migration():
    assert sorted(_schema.MIGRATIONS) == list(range(1, _schema.VERSION))
