"""A store has one writer, whom trouble costs no more than one record."""

import json
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from ntkstats.errors import (
    StoreError,
)
from ntkstats.recording.store import _lock
from ntkstats.recording.store._store import Row, Store, failure
from tests.recording.stores import begun, row, steps_in

# --- one writer -------------------------------------------------------------------------------


def test_two_recorders_on_one_file_are_refused(tmp_path):
    first = begun(tmp_path / "run")
    first.write([row(0)])
    with pytest.raises(StoreError, match=rf"written by process {os.getpid()}.*close\(\) the other"):
        Store(tmp_path / "run", resume=True)
    first.write([row(1)])
    first.close()
    Store(tmp_path / "run", resume=True).close()


def holder(tmp_path, **changes):
    """A run whose lock somebody else holds."""
    store = begun(tmp_path / "run")
    store.write([row(0)])
    other = _lock.this_process()._replace(**changes)
    with sqlite3.connect(store.path) as connection:
        connection.execute("INSERT OR REPLACE INTO lock VALUES (1, ?, ?, ?, ?, ?)", other)
    connection.close()
    return store


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    holder(tmp_path, pid=dead_pid(), mark="", token="dead")
    Store(tmp_path / "run", resume=True).close()


def test_the_lock_of_an_earlier_process_with_our_number_is_taken_over(tmp_path):
    # A restarted container gives its one process the same number again.
    holder(tmp_path, mark="another boot:1", token="dead")
    Store(tmp_path / "run", resume=True).close()


@pytest.mark.parametrize(
    "changes", [{"pid": os.getppid(), "mark": ""}, {"host": "elsewhere", "mark": "x:1"}]
)
def test_the_lock_of_a_process_that_may_live_is_respected_until_told_otherwise(tmp_path, changes):
    holder(tmp_path, token="other", **changes)
    with pytest.raises(StoreError, match="resume='takeover'"):
        Store(tmp_path / "run", resume=True)
    Store(tmp_path / "run", resume="takeover").close()


def test_a_recorder_that_was_replaced_can_no_longer_write(tmp_path):
    old = begun(tmp_path / "run")
    old.write([row(0)])
    new = Store(tmp_path / "run", resume="takeover")
    with pytest.raises(StoreError, match="was taken over"):
        old.write([row(1)])
    old.close()
    new.begin({}, [], facts={}, from_step=1)
    new.write([row(1)])
    new.close()
    assert steps_in(tmp_path / "run") == [0, 1]


# --- trouble while it runs --------------------------------------------------------------------


def test_a_full_disk_loses_only_the_record_that_did_not_fit(tmp_path):
    store = begun(tmp_path / "run")
    store.write([row(0)])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    large = Row(1, ("step",), 0.0, 0.0, {"value": np.zeros(10**5)})
    with pytest.raises(StoreError, match=r"full; free some disk space \(earlier records are safe"):
        store.write([large])
    assert steps_in(store.path) == [0]
    store._connection.execute("PRAGMA max_page_count = 100000").fetchone()
    store.write([row(1)])
    assert steps_in(store.path) == [0, 1]
    store.close()


def test_a_file_that_became_read_only_keeps_its_records(tmp_path):
    store = begun(tmp_path / "run")
    store.write([row(0)])
    store._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="make the file and its folder writable"):
        store.write([row(1)])
    assert steps_in(store.path) == [0]
    store.close()


def test_an_interruption_in_the_middle_of_a_record_leaves_nothing_of_it(tmp_path):
    store = begun(tmp_path / "run")

    class Interrupting(dict):
        def items(self):
            yield "value", np.zeros(3, np.float32)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write([row(0)._replace(arrays=Interrupting(value=np.zeros(3)))])
    store.write([row(0)])
    assert steps_in(store.path) == [0]
    store.close()


def test_nothing_in_the_file_is_pickled(tmp_path):
    store = begun(tmp_path / "run")
    store.write([row(3)], failures=[failure(2, "measure", ValueError("no"))])
    store.close()
    connection = sqlite3.connect(store.path)
    texts = [v for (v,) in connection.execute("SELECT value FROM meta")]
    texts += [v for (v,) in connection.execute("SELECT spec FROM fields")]
    assert all(json.loads(text) is not Ellipsis for text in texts)
    (data,) = connection.execute("SELECT data FROM arrays").fetchone()
    assert data == np.full(3, 3, "<f4").tobytes()
    connection.close()
