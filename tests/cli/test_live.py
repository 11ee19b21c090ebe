"""A run beside a living writer, after its writer was killed, and after its file was damaged."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ntkstats as nts
from ntkstats.cli import _watch, main
from ntkstats.errors import StoreError
from ntkstats.recording import repair
from ntkstats.recording.store import _lock
from tests.cli.runs import command, environment
from tests.cli.writer_child import recorder_of
from tests.recording.helpers import MODEL, PROBE, state, weight_mean, weights


@contextmanager
def writer(path):
    """A process that obeys ``order``; killed at the end of the block."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.writer_child", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )

    def order(word):
        print(word, file=child.stdin, flush=True)
        answer = child.stdout.readline().strip()
        assert answer, child.stderr.read()
        return answer

    try:
        yield child, order
    finally:
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """A run of which steps 0 to 3 were promised before its process was killed in step 4.

    While the process lived, the run was watched and a repair was tried.
    """
    path = tmp_path_factory.mktemp("live") / "run.sqlite"
    seen = {}
    with writer(path) as (child, order):
        assert [order("record") for _ in range(2)] == ["0", "1"]
        watching = subprocess.Popen(
            [sys.executable, "-m", "ntkstats", "watch", str(path), "--interval", "0.05"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        lines = [watching.stdout.readline() for _ in range(3)]
        assert order("record") == "2"
        lines.append(watching.stdout.readline())
        assert order("record") == "3"
        lines.append(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        rest, err = watching.communicate(timeout=60)
        seen["watch"] = (lines, rest, err, watching.returncode)
        for options in ([], ["--dry-run"], ["--takeover"]):
            with pytest.raises(StoreError, match=f"written by process {child.pid} on .* no repair"):
                repair(path, dry_run="--dry-run" in options, takeover="--takeover" in options)
        assert child.poll() is None
        assert order("hang") == "hanging"
    return path, seen


@pytest.fixture
def killed(left_behind, tmp_path):
    """A copy of that run and its journal."""
    for file in left_behind[0].parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / left_behind[0].name


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- watch ------------------------------------------------------------------------------------


def test_watch_follows_a_living_writer_until_ctrl_c(left_behind):
    lines, rest, err, code = left_behind[1]["watch"]
    assert (code, err, rest.strip()) == (0, "", "")
    assert lines[0] == "run: running, 2 records\n"
    assert lines[1:] == [f"step {s}  weight_mean {s + 1}  loss {s}\n" for s in range(4)]


@pytest.fixture
def living(tmp_path, monkeypatch):
    """A run of this process that gets a record whenever the watching pauses."""
    recorder = nts.Recorder(
        tmp_path / "run", MODEL, PROBE, weight_mean(), at=nts.RecordAt.every(2, until=6)
    )
    left = [0, 2, 4]

    def pause(seconds):
        assert seconds == 1.0
        if left:
            recorder(left[0], state(left.pop(0)))
        else:
            recorder.finish(state(6), step=6)

    monkeypatch.setattr(_watch, "time", SimpleNamespace(sleep=pause))
    yield tmp_path / "run"
    recorder.close()


def test_watch_waits_for_the_first_record_and_ends_with_the_run(living, capsys):
    assert main(["watch", str(living)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: running, 1 records (1 of 4 planned)"
    assert lines[1:5] == [f"step {s}  weight_mean {s + 1}" for s in (0, 2, 4, 6)]
    assert lines[5:] == ["run: finished, 4 records (4 of 4 planned)"]


def test_watch_updates_a_terminal_in_place(living, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "7")
    assert main(["watch", str(living)]) == 0
    pages = re.split(r"\x1b\[\d+A\x1b\[J", capsys.readouterr().out)
    assert pages[0] == "waiting for the first record\n"
    assert pages[-1].splitlines()[0] == "run: finished, 4 records (4 of 4 planned)"
    # The last three of four records: the terminal has no room for more.
    assert [line.split()[0] for line in pages[-1].splitlines()[1:]] == ["step", "2", "4", "6"]
    assert all(len(line) < 60 for page in pages for line in page.splitlines())


def test_watch_once_prints_a_table(living, capsys):
    assert main(["watch", str(living), "--once"]) == 2
    assert "holds no record yet" in capsys.readouterr().err
    _watch.time.sleep(1.0)
    assert main(["watch", str(living), "--once"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "run:",
        "step",
        "0",
    ]


def test_ctrl_c_ends_the_watching_without_an_error(living, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(_watch, "time", SimpleNamespace(sleep=interrupt))
    assert main(["watch", str(living)]) == 0


def test_watching_a_killed_run_ends_with_a_finding(killed, capsys):
    assert main(["watch", str(killed)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "run: killed, 4 records"


# --- repair of a killed run -------------------------------------------------------------------


def test_a_killed_run_is_repaired_and_keeps_every_promised_record(killed):
    assert Path(f"{killed}-journal").stat().st_size > 0
    before = contents(killed.parent)
    dry = command("repair", killed, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert "would  remove the lock" in dry.stdout
    assert "nothing was changed, 4 records" in dry.stdout
    assert contents(killed.parent) == before
    result = repair(killed)
    assert result.found[0] == "the process was killed in the middle of a record"
    assert result.found[2:] == ("attempt 1 has no end",)
    assert result.done == (
        "undo the unfinished record, which was never acknowledged",
        "remove the lock",
        "mark attempt 1 as killed",
    )
    assert (result.lost, result.records) == ((), 4)
    assert [file.name for file in killed.parent.iterdir()] == [killed.name]
    ds = nts.open_run(killed)
    assert ds.step.values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(ds.weight_mean, ds.step + 1)
    assert (ds.a_weights == ds.weight_mean).all()
    assert ds.attrs["attempts"][0]["status"] == "killed"


def test_a_second_repair_has_nothing_to_do(killed, capsys):
    assert main(["repair", str(killed)]) == 0
    capsys.readouterr()
    assert main(["repair", str(killed)]) == 0
    assert capsys.readouterr().out == f"{killed}: nothing to repair, 4 records\n"


def test_a_repaired_run_can_be_resumed(killed):
    repair(killed)
    with recorder_of(killed) as recorder:
        recorder(4, state(4), loss=4.0)
        recorder.finish(state(5), loss=5.0)
    ds = nts.open_run(killed)
    assert ds.step.values.tolist() == list(range(6))
    assert [a["status"] for a in ds.attrs["attempts"]] == ["killed", "finished"]


def owned_by(path, **changes):
    """Write another owner into the lock."""
    owner = _lock.this_process()._replace(token="other", **changes)
    with sqlite3.connect(path) as db:
        db.execute("INSERT OR REPLACE INTO lock VALUES (1, ?, ?, ?, ?, ?)", owner)
    db.close()


def test_a_process_elsewhere_is_respected_until_told_otherwise(folder, capsys):
    path = folder / "slow.sqlite"
    owned_by(path, host="elsewhere")
    assert main(["repair", str(path)]) == 2
    assert "take it over if you know" in capsys.readouterr().err
    assert main(["repair", str(path), "--takeover"]) == 0
    assert "done   remove the lock" in capsys.readouterr().out


def test_a_living_process_is_never_taken_over(folder, capsys):
    path = folder / "slow.sqlite"
    owned_by(path, pid=os.getpid())
    assert main(["repair", str(path), "--takeover"]) == 2
    assert "a live run needs no repair" in capsys.readouterr().err


# --- repair of a damaged file -----------------------------------------------------------------


def cut(path, count):
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size - count)


def rows_of(path):
    ds = nts.open_run(path)
    return {int(s): float(ds.weight_mean.sel(step=s)) for s in ds.step.values}


def test_a_file_that_was_cut_off_loses_that_and_nothing_else(killed, capsys):
    repair(killed)
    cut(killed, 1000)
    damaged = killed.read_bytes()
    assert main(["repair", str(killed), "--dry-run"]) == 1
    assert killed.read_bytes() == damaged
    assert "would  copy 3 readable records" in capsys.readouterr().out
    assert main(["repair", str(killed)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"found  the file is damaged: \d+ pages of 4096 bytes were written", out)
    assert "lost   everything at step 3" in out
    assert killed.with_name(f"{killed.name}.damaged").read_bytes() == damaged
    ds = nts.open_run(killed)
    assert ds.step.values.tolist() == [0, 1, 2]
    assert (ds.a_weights == ds.step + 1).all()
    assert main(["repair", str(killed)]) == 0


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Many small records, some of them larger than a page."""
    path = tmp_path_factory.mktemp("long") / "run.sqlite"
    measure = [weight_mean(), weights(repeat=30), weights("large", repeat=300)]
    with nts.Recorder(path, MODEL, PROBE, measure, at=nts.RecordAt.every(1)) as recorder:
        for step in range(40):
            recorder(step, state(step))
        recorder.finish(state(40))
    return path.read_bytes()


def check_salvaged(path, result):
    """Everything there is right; what was hit is missing, never wrong. Gives the steps."""
    ds = nts.open_run(path)
    assert result.records == ds.sizes["step"]
    for name in ds.data_vars:
        assert ((ds[name] == ds.step + 1) | ds[name].isnull()).all()
    complete = not any(ds[name].isnull().any() for name in ds.data_vars)
    assert bool(result.lost) == (ds.sizes["step"] < 41 or not complete or len(ds.data_vars) < 3)
    return ds.step.values.tolist()


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
def test_what_is_left_of_a_truncated_file_is_right(tmp_path, long_run, part):
    path = tmp_path / "run.sqlite"
    path.write_bytes(long_run[: int(part * len(long_run))])
    steps = check_salvaged(path, repair(path))
    assert len(steps) > 41 * part - 12
    assert steps == list(range(len(steps)))


def test_an_overwritten_page_costs_only_what_was_on_it(tmp_path, long_run):
    path = tmp_path / "run.sqlite"
    outcomes = {"lost": 0, "mended": 0, "refused": 0}
    # Of the pages of long values the last one would go unnoticed: a store has no checksums.
    leaves = [p for p in range(0, len(long_run), 4096) if long_run[p] in (2, 5, 10, 13)][1:]
    for start in leaves[:: max(1, len(leaves) // 12)]:
        path.write_bytes(long_run[:start] + b"\xaa" * 4096 + long_run[start + 4096 :])
        try:
            result = repair(path)
        except StoreError as error:
            outcomes["refused"] += 1
            said = str(error)
        else:
            outcomes["lost" if result.lost else "mended"] += 1
            check_salvaged(path, result)
            said = "beyond repair"
        assert re.search("beyond repair|no readable record", said)
    assert outcomes["lost"] > outcomes["refused"]


def test_a_file_without_its_beginning_is_beyond_repair_and_left_alone(killed, capsys):
    repair(killed)
    cut(killed, killed.stat().st_size - 5000)
    before = contents(killed.parent)
    assert main(["repair", str(killed)]) == 2
    assert "beyond repair" in capsys.readouterr().err
    assert contents(killed.parent) == before
