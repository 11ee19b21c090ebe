"""Sweeps finish whatever happens to their tasks, workers and coordinators."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from studies._errors import StudyError
from studies._folder import locked, task_folder
from studies._settings import setting
from studies._study import Study
from studies.sweeps import LineScreen, Sweep, _signs, run_sweep, stored_sweep, sweep
from studies.sweeps._run import failures
from studies.sweeps._signs import Signs, read_sign, sign_file
from studies.sweeps._work import Order, attempt
from tests.studies.sweeps import gram

ROOT = Path(__file__).parents[3]


@pytest.fixture
def quiet():
    return LineScreen(io.StringIO())


def made(**changes):
    grid = changes.pop("grid", {"size": (4, 8), "wide": (2, 3)})
    return sweep(gram.study, grid, base=gram.Config(**changes))


def finished(folder):
    found = {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("tasks/*/eigenvalues.npy")}
    return {name: time for name, time in found.items() if not name.endswith(".partial")}


def sessions(folder):
    return [json.loads(line) for line in (folder / "sessions.jsonl").read_text().splitlines()]


def test_every_point_of_the_grid_runs_once(tmp_path, quiet):
    tally = run_sweep(made(), tmp_path / "s", quiet)
    assert tally == (4, 0, (), 0)
    sizes = sorted(
        np.load(p / "eigenvalues.npy").size
        for p in (tmp_path / "s" / "tasks").iterdir()
        if not p.name.endswith(".partial")
    )
    assert sizes == [4, 4, 8, 8]
    before = finished(tmp_path / "s")
    assert run_sweep(made(), tmp_path / "s", quiet) == (0, 4, (), 0)
    assert finished(tmp_path / "s") == before
    assert stored_sweep(tmp_path / "s", gram.study) == made()


def test_a_task_that_several_points_share_runs_once(tmp_path, quiet):
    shared = made(grid={"size": (4, 8), "shape": ((1,), (2, 3))})  # tasks know no shape
    assert len(shared.points()) == 4
    assert run_sweep(shared, tmp_path / "s", quiet).ran == 2


def test_ids_follow_from_the_config_alone():
    assert set(made().tasks()) == set(made().tasks())
    assert not set(made().tasks()) & set(made(seed=1).tasks())
    more = made(grid={"size": (4, 8, 16), "wide": (2, 3)})
    assert set(made().tasks()) < set(more.tasks())


def test_a_failed_task_is_recorded_and_stops_nobody(tmp_path, quiet):
    bad = made(mishap="raise@4")
    tally = run_sweep(bad, tmp_path / "s", quiet)
    assert (tally.ran, tally.kept, len(tally.failed)) == (2, 0, 2)
    assert {o.why for o in tally.failed} == {"RuntimeError: the matrix is cursed"}
    records = failures(tmp_path / "s")
    assert [r["label"] for r in records] == ["Gram 4x12", "Gram 4x8"]
    assert {r["id"] for r in records} == {o.id for o in tally.failed}
    assert "in run" in records[0]["traceback"]
    assert records[0]["config"]["size"] == 4
    assert not list((tmp_path / "s").glob("tasks/*.partial"))
    skipped = run_sweep(bad, tmp_path / "s", quiet, skip_failed=True)
    assert skipped == (0, 2, (), 2)
    run_sweep(bad, tmp_path / "s", quiet)
    assert {r["attempts"] for r in failures(tmp_path / "s")} == {2}


def test_a_failure_is_forgotten_once_the_task_is_finished(tmp_path, quiet):
    broken = {"on": True}

    def run(task, folder, progress):
        if broken["on"]:
            raise ValueError
        gram.run(task, folder, progress)

    plan = sweep(replace(gram.study, run=run), {"size": (4,)})
    assert len(run_sweep(plan, tmp_path / "s", quiet).failed) == 1
    broken["on"] = False
    assert run_sweep(plan, tmp_path / "s", quiet).ran == 1
    assert not failures(tmp_path / "s")


def test_a_worker_that_dies_costs_its_own_task_alone(tmp_path, quiet):
    plan = made(grid={"size": (4, 6, 8), "mishap": ("die@6,raise@8",)}, seconds=0.5)
    tally = run_sweep(plan, tmp_path / "s", quiet, executor="process", workers=2)
    assert tally.ran == 1
    by_label = {o.label: o for o in tally.failed}
    assert {k: o.state for k, o in by_label.items()} == {"Gram 6x12": "lost", "Gram 8x16": "failed"}
    assert "its process died twice" in by_label["Gram 6x12"].why
    records = failures(tmp_path / "s")
    assert [r["state"] for r in records] == ["lost", "failed"]
    assert len(finished(tmp_path / "s")) == 1
    assert not list((tmp_path / "s").glob("live/*"))


def test_a_killed_sweep_goes_on_where_it_stood_and_leaves_no_process(tmp_path, quiet):
    folder = tmp_path / "s"
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.studies.sweeps import gram\n"
        "from studies.sweeps import run_sweep, sweep\n"
        "if __name__ == '__main__':\n"
        "    plan = sweep(gram.study, {'size': (4, 6, 8, 10, 12, 14)}, "
        "base=gram.Config(seconds=0.6))\n"
        f"    run_sweep(plan, Path({str(folder)!r}), executor='process', workers=2)\n"
    )
    script = tmp_path / "go.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], env=environment) as first:
        deadline = time.monotonic() + 120
        while len(finished(folder)) < 2 or not list(folder.glob("live/*.json")):
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.02)
        workers = {read_sign(f).process for f in folder.glob("live/*.json") if read_sign(f)}
        first.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{w}/stat").exists() and not _zombie(w) for w in workers):
        assert time.monotonic() < deadline, "workers outlive the sweep"
        time.sleep(0.05)
    before = finished(folder)
    assert 2 <= len(before) < 6
    plan = made(grid={"size": (4, 6, 8, 10, 12, 14)}, seconds=0.6)
    start = time.monotonic()
    tally = run_sweep(plan, folder, quiet)
    assert tally == (6 - len(before), len(before), (), 0)
    # the kernel knows that the workers are dead: nobody waits for their next beat
    assert time.monotonic() - start < 0.6 * tally.ran + 6
    after = finished(folder)
    assert {k: after[k] for k in before} == before
    assert len(after) == 6
    assert not list(folder.glob("live/*"))
    assert not list(folder.glob("tasks/*.partial"))


def _zombie(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_any_executor_of_the_standard_library_will_do(tmp_path, quiet):
    with ThreadPoolExecutor(2) as pool:
        assert run_sweep(made(), tmp_path / "s", quiet, executor=pool).ran == 4


def test_interrupting_keeps_what_is_finished(tmp_path, quiet):
    def stop(task, folder, progress):
        if task.size == 8:
            raise KeyboardInterrupt
        gram.run(task, folder, progress)

    plan = sweep(replace(gram.study, run=stop), {"size": (4, 8)})
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, tmp_path / "s", quiet)
    assert len(finished(tmp_path / "s")) == 1
    assert not list((tmp_path / "s").glob("live/*"))


def test_another_process_at_work_is_respected(tmp_path, quiet):
    with locked(tmp_path / "s"), pytest.raises(StudyError, match="Another process works in"):
        run_sweep(made(), tmp_path / "s", quiet)


def test_a_second_sweep_is_refused_unless_it_extends_the_first(tmp_path, quiet):
    folder = tmp_path / "s"
    run_sweep(made(), folder, quiet)
    with pytest.raises(StudyError, match=r"another sweep \(config: seed 0, not 1\)"):
        run_sweep(made(seed=1), folder, quiet)
    more = made(grid={"size": (4, 8, 16), "wide": (2, 3)})
    with pytest.raises(StudyError, match=r"grid: size \[4, 8\], not \[4, 8, 16\].*or --extend"):
        run_sweep(more, folder, quiet)
    with pytest.raises(StudyError, match="choose another --out"):
        run_sweep(made(grid={"size": (4,), "wide": (2, 3)}), folder, quiet, extend=True)
    assert run_sweep(more, folder, quiet, extend=True) == (2, 4, (), 0)
    assert stored_sweep(folder, gram.study) == more


def test_a_folder_of_other_files_is_refused(tmp_path, quiet):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StudyError, match="not of a sweep"):
        run_sweep(made(), tmp_path, quiet)
    with pytest.raises(StudyError, match="is a file"):
        run_sweep(made(), tmp_path / "thesis.tex", quiet)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_changed_code_is_warned_about_and_recorded(tmp_path, monkeypatch):
    folder, stream = tmp_path / "s", io.StringIO()
    run_sweep(made(grid={"size": (4,)}), folder, LineScreen(stream))
    assert "warning" not in stream.getvalue()
    monkeypatch.setattr("studies.sweeps._run.fingerprint", lambda _: "feedbeefcafe")
    monkeypatch.setattr("studies.sweeps._work.fingerprint", lambda _: "feedbeefcafe")
    more = made(grid={"size": (4, 8)})
    run_sweep(more, folder, LineScreen(stream), extend=True)
    assert "warning: the code changed since 1 of the finished tasks" in stream.getvalue()
    one, two = [s for s in sessions(folder) if s["event"] == "began"]
    assert one["other_code"] == {}
    assert list(two["other_code"]) == [one["code"]]
    assert two["code"] == "feedbeefcafe"
    codes = {json.loads(p.read_text())["code"] for p in folder.glob("tasks/*/task.json")}
    assert codes == {one["code"], "feedbeefcafe"}


def test_fingerprint_changes_with_the_code_of_the_study(tmp_path):
    from studies.sweeps._code import _hash

    (tmp_path / "a.py").write_text("x = 1")
    own = tmp_path / "own" / "study.py"
    own.parent.mkdir()
    own.write_text("y = 1")
    first = _hash((tmp_path / "own",), None)
    assert first == _hash((tmp_path / "own",), own)
    assert first != _hash((tmp_path / "own",), tmp_path / "a.py")
    os.utime(own, ns=(0, 0))
    assert first == _hash((tmp_path / "own",), None)
    own.write_text("y = 2")
    assert first != _hash((tmp_path / "own",), None)


# --- who lives, whatever the clocks say --------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(_signs, "BEAT", 0.05)
    monkeypatch.setattr(_signs, "_kernel", lambda: "")  # as on another machine


def order(folder, name="mine"):
    return Order(gram.study, gram.tasks(gram.Config())[0], folder, name)


@pytest.mark.parametrize("age", [-1e6, 1e6])
def test_a_dead_worker_is_not_waited_for_whatever_its_clock_said(tmp_path, quick, age):
    mine = order(tmp_path)
    file = sign_file(tmp_path, mine.id, "theirs")
    file.parent.mkdir()
    file.write_text(json.dumps([7, "Gram", 3, 20, "elsewhere", 1]))
    then = time.time() + age
    os.utime(file, (then, then))
    half = task_folder(gram.study, tmp_path, mine.task)
    half = half.with_name(f"{half.name}.theirs.partial")
    half.mkdir(parents=True)
    assert attempt(mine).state == "finished"
    assert not file.exists()
    assert not half.exists()


@pytest.mark.parametrize("age", [-1e6, 1e6])
def test_a_living_worker_is_waited_for_whatever_its_clock_says(tmp_path, quick, age):
    mine, theirs = order(tmp_path), order(tmp_path, "theirs")
    final = task_folder(gram.study, tmp_path, mine.task)
    signs = Signs(sign_file(tmp_path, mine.id, "theirs"), "Gram")
    outcome = []
    with signs.beating():
        then = time.time() + age
        os.utime(sign_file(tmp_path, mine.id, "theirs"), (then, then))
        thread = threading.Thread(target=lambda: outcome.append(attempt(mine)))
        thread.start()
        time.sleep(1.5)  # twice as long as a dead one would be given
        assert not outcome
        assert not final.exists()
        final.mkdir(parents=True)
        thread.join(10)
    assert [o.state for o in outcome] == ["kept"]
    assert attempt(theirs).state == "kept"


def test_two_attempts_at_once_leave_the_first_to_finish(tmp_path, monkeypatch):
    monkeypatch.setattr("studies.sweeps._work.wait_for_others", lambda *a: None)
    both = threading.Barrier(2)

    def run(task, folder, progress):
        both.wait(10)
        gram.run(task, folder, progress)

    study = replace(gram.study, run=run)
    with ThreadPoolExecutor(2) as pool:
        orders = [order(tmp_path, name)._replace(study=study) for name in ("a", "b")]
        assert [o.state for o in pool.map(attempt, orders)] == ["finished"] * 2
    assert len(finished(tmp_path)) == 1
    assert not list(tmp_path.glob("tasks/*.partial"))


def test_signs_that_are_being_written_are_passed_over(tmp_path):
    file = tmp_path / "x.json"
    for text in ("", "[3", "{}", "3"):
        file.write_text(text)
        assert read_sign(file) is None
    assert read_sign(tmp_path / "none.json") is None


# --- bad input ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Odd:
    """A config that JSON does not take."""

    size: object = setting(4, "anything")


@dataclass
class Loose:
    """A config that can change."""

    size: int = setting(4, "rows")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: made(grid={}), "The grid is empty; give --grid FIELD=VALUE,VALUE with fields of"),
        (lambda: made(grid={"size": ()}), "has no value for 'size'"),
        (lambda: made(grid={"sise": (4,)}), "Unknown field 'sise'"),
        (lambda: made(grid={"sise": (4,)}), "Did you mean 'size'?"),
        (lambda: made(grid={"size": (4, 4)}), "holds a value of 'size' twice"),
        (lambda: made(grid={"size": (4, 1)}), "gram cannot be run at size=1: size=1; expected"),
        (lambda: sweep(gram.study, {"seed": (1,)}, seeds=2), "'seed' is in the grid already"),
        (lambda: sweep(gram.study, {"size": (4,)}, seeds=0), "seeds=0; expected at least 1"),
        (lambda: made(grid={"seconds": (float("nan"),)}), "seconds=nan of Config cannot be"),
        (lambda: made(grid={"size": (np.int64(4),)}), "of Config cannot be stored; expected"),
        (
            lambda: sweep(replace(gram.study, config=Odd), {"size": (print,)}),
            "of Odd cannot be stored",
        ),
        (lambda: replace(gram.study, config=Loose), "expected a frozen dataclass"),
        (lambda: replace(gram.study, config=dict), "expected a frozen dataclass"),
        (
            lambda: sweep(replace(gram.study, tasks=lambda c: ()), {"size": (4,)}),
            "gram gives 0 tasks at {'size': 4}",
        ),
        (
            lambda: sweep(replace(gram.study, config=Odd), {"size": (4,)}, seeds=2),
            "neither seeds nor seed",
        ),
    ],
)
def test_bad_sweeps_are_answered(make, part):
    with pytest.raises(StudyError) as caught:
        make()
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"executor": "threads"}, "Unknown executor 'threads'; expected one of serial, process"),
        ({"executor": "serial", "workers": 2}, "one worker, not 2"),
        ({"executor": "process", "workers": 0}, "workers=0; expected at least 1"),
        ({"executor": "serial", "options": {"a": "1"}}, "Unknown option 'a' for --executor serial"),
        ({"executor": "process", "options": {"a": "1"}}, "expected devices"),
        (
            {"executor": "process", "workers": 3, "options": {"devices": "0,1"}},
            "3 workers for 2 devices",
        ),
    ],
)
def test_bad_engines_are_answered_before_anything_runs(tmp_path, quiet, options, part):
    with pytest.raises(StudyError) as caught:
        run_sweep(made(), tmp_path / "s", quiet, **options)
    assert part in str(caught.value)
    assert not (tmp_path / "s" / "sessions.jsonl").exists()


def test_seeds_are_trained_together_or_become_tasks():
    class_with = sweep(gram.study, {"size": (4,)}, seeds=3)
    assert class_with.grid == (("size", (4,)), ("seed", (0, 1, 2)))
    from studies.quickstart import study as quickstart

    together = sweep(quickstart, {"narrow": (4, 8)}, seeds=3)
    assert together.base.seeds == 3
    # the wide network and the CNN are the same at both points
    assert len(together.tasks()) == 4
    assert isinstance(together, Sweep)
    assert isinstance(quickstart, Study)


def test_tasks_of_a_point_are_named_by_what_is_the_same_everywhere(tmp_path):
    from studies.quickstart import study as quickstart
    from studies.sweeps._table import _axes, _entries

    plan = sweep(quickstart, {"narrow": (4, 8), "channels": ((2,), (2, 4))})
    entries = list(_entries(plan, lambda _: (tmp_path / "task", "missing")))
    assert {e.status for e in entries} == {"missing"}
    dims, sizes, labels = _axes(plan, entries)
    assert (dims, sizes) == (("narrow", "channels", "task"), (2, 2, 3))
    assert labels["task"].tolist() == ["narrow MLP", "wide MLP", "CNN"]
    assert labels["channels"].tolist() == ["2", "2,4"]


def test_a_sweep_that_is_not_there_or_not_readable(tmp_path):
    with pytest.raises(StudyError, match="No sweep at"):
        stored_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(StudyError, match="not readable"):
        stored_sweep(tmp_path, gram.study)
    (tmp_path / "sweep.json").write_text(json.dumps({**made().facts(), "version": 7}))
    with pytest.raises(StudyError, match="version 7; expected 'gram' version 1"):
        stored_sweep(tmp_path, gram.study)


def test_a_killed_worker_of_this_machine_is_known_to_be_dead(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        sign = _signs.Sign(1, "x", 0, 0, _signs._kernel(), child.pid)
        assert not _signs._is_dead_here(sign)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert _signs._is_dead_here(sign)
        assert not _signs._is_dead_here(sign._replace(kernel="elsewhere"))
