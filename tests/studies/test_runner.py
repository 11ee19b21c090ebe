"""Tasks run once, survive interruption, and never mix."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from studies import _cli, _study
from studies._errors import StudyError
from studies._folder import default_folder, digest, locked, stored_config, task_folder
from studies._progress import Lines
from studies._runner import Done, report_study, run_study
from studies._settings import setting
from studies._study import Report, Study, study_named


@dataclass(frozen=True)
class Config:
    """Spectra of random Gram matrices."""

    sizes: tuple[int, ...] = setting((4, 8), "rows of the matrices")
    seed: int = setting(0, "seed")

    def __post_init__(self):
        if min(self.sizes) < 2:
            msg = f"sizes={self.sizes}; expected at least 2."
            raise StudyError(msg)


@dataclass(frozen=True)
class Matrix:
    """One matrix."""

    label: str
    size: int
    seed: int


def tasks(config):
    return tuple(Matrix(f"Gram {n}", n, config.seed) for n in config.sizes)


def run(task, folder, progress):
    with progress.bar(task.label) as update:
        draw = np.random.default_rng(task.seed).normal(size=(task.size, 2 * task.size))
        np.save(folder / "eigenvalues.npy", np.linalg.eigvalsh(draw @ draw.T))
        update(1, 1)


def report(config, finished, folder):
    rows = [f"{t.label}: {np.load(f / 'eigenvalues.npy').max():.6f}" for t, f in finished]
    target = folder / "table.txt"
    target.write_text("\n".join(rows))
    return Report("\n".join(rows), (target,))


STUDY = Study("gram", "Largest eigenvalues of random Gram matrices.", Config, tasks, run, report)


@pytest.fixture
def quiet():
    return Lines(io.StringIO())


@pytest.fixture
def registered(monkeypatch):
    """The study, as if it were a package of studies."""
    monkeypatch.setattr(_study, "NAMES", ("gram", "quickstart"))
    module = type(sys)("studies.gram")
    module.study = STUDY
    monkeypatch.setitem(sys.modules, "studies.gram", module)


def test_a_second_run_keeps_every_finished_task(tmp_path, quiet):
    assert run_study(STUDY, Config(), tmp_path / "r", quiet) == Done(2, 0)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "r" / "tasks").rglob("*")}
    assert run_study(STUDY, Config(), tmp_path / "r", quiet) == Done(0, 2)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "r" / "tasks").rglob("*")} == before


def test_a_task_is_the_same_wherever_it_is_listed(tmp_path, quiet):
    one, two = Config(sizes=(4, 8)), Config(sizes=(8, 16))
    shared = [task_folder(STUDY, tmp_path, t) for t in (tasks(one)[1], tasks(two)[0])]
    assert shared[0] == shared[1]
    assert digest(STUDY, one) != digest(STUDY, two)
    assert digest(STUDY, one) != digest(replace(STUDY, version=2), one)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_task_leaves_nothing_and_starts_again(tmp_path, quiet, error):
    def breaks(task, folder, progress):
        run(task, folder, progress)
        if task.size == 8:
            raise error

    with pytest.raises(error):
        run_study(replace(STUDY, run=breaks), Config(), tmp_path / "r", quiet)
    assert [p.name.split("-")[1] for p in (tmp_path / "r" / "tasks").iterdir()] == ["4"]
    assert (
        "Not finished and not shown: Gram 8" in report_study(STUDY, Config(), tmp_path / "r").text
    )
    assert run_study(STUDY, Config(), tmp_path / "r", quiet) == Done(1, 1)
    assert "Not finished" not in report_study(STUDY, Config(), tmp_path / "r").text


def test_what_a_killed_process_left_behind_is_cleared_away(tmp_path, quiet):
    folder = tmp_path / "r"
    run_study(STUDY, Config(sizes=(4,)), folder, quiet)
    done = task_folder(STUDY, folder, tasks(Config(sizes=(4,)))[0])
    half = done.with_name(done.name + ".partial")
    done.rename(half)
    (half / "eigenvalues.npy").write_bytes(b"half")
    assert run_study(STUDY, Config(sizes=(4,)), folder, quiet) == Done(1, 0)
    assert np.load(done / "eigenvalues.npy").shape == (4,)
    assert not half.exists()


def test_another_process_cannot_work_in_the_same_folder(tmp_path, quiet):
    folder = tmp_path / "r"
    folder.mkdir()
    root = Path(__file__).parents[2]
    code = (
        f"import sys; from pathlib import Path; from studies._folder import locked\n"
        f"with locked(Path({str(folder)!r})):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline().strip() == b"locked"
        with pytest.raises(StudyError, match="Another process works in"):
            run_study(STUDY, Config(), folder, quiet)
        other.kill()
    assert run_study(STUDY, Config(), folder, quiet) == Done(2, 0)


def test_a_failed_attempt_to_lock_does_not_break_the_lock(tmp_path):
    with locked(tmp_path):
        for _ in range(2):
            with pytest.raises(StudyError), locked(tmp_path):
                pass


def test_a_folder_of_another_configuration_is_refused_and_left_alone(tmp_path, quiet):
    run_study(STUDY, Config(), tmp_path / "r", quiet)
    with pytest.raises(StudyError, match=r"another configuration \(seed: 0, not 1\)"):
        run_study(STUDY, Config(seed=1), tmp_path / "r", quiet)
    with pytest.raises(StudyError, match="version 1, not 2"):
        run_study(replace(STUDY, version=2), Config(), tmp_path / "r", quiet)
    assert stored_config(STUDY, tmp_path / "r") == Config()


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path, quiet):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StudyError, match="files that are not of a study"):
        run_study(STUDY, Config(), tmp_path, quiet)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StudyError, match="is a file"):
        run_study(STUDY, Config(), tmp_path / "thesis.tex", quiet)


def test_an_unreadable_or_outdated_config_is_refused(tmp_path, quiet):
    run_study(STUDY, Config(), tmp_path / "r", quiet)
    path = tmp_path / "r" / "config.json"
    for text, part in (
        ("{", "not readable"),
        ("[]", "not of a study"),
        (json.dumps({"study": "gram", "version": 0, "config": {}}), "version 0; expected"),
        (json.dumps({"study": "gram", "version": 1, "config": {"n": 3}}), "does not fit this"),
    ):
        path.write_text(text)
        with pytest.raises(StudyError, match=part):
            stored_config(STUDY, tmp_path / "r")


def test_report_without_any_finished_task_is_refused(tmp_path):
    with pytest.raises(StudyError, match="No task of gram is finished"):
        report_study(STUDY, Config(), tmp_path)


def test_command_line_runs_reports_and_lists(registered, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _cli.main(["run", "gram", "--set", "sizes=4", "--seed", "3"]) == 0
    folder = default_folder(STUDY, Config(sizes=(4,), seed=3))
    assert str(folder) in capsys.readouterr().out
    assert folder.parts[:2] == ("runs", "gram")

    (folder / "table.txt").unlink()
    assert _cli.main(["report", "gram", "--out", str(folder)]) == 0
    assert (folder / "table.txt").exists()
    assert _cli.main(["report", "gram", "--set", "sizes=4", "seed=3"]) == 0
    assert "Gram 4:" in capsys.readouterr().out

    assert _cli.main(["list"]) == 0
    assert "Largest eigenvalues of random Gram matrices." in capsys.readouterr().out
    assert _cli.main(["list", "gram"]) == 0
    assert "sizes=4,8" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(registered, tmp_path, monkeypatch, capsys):
    def stop(task, folder, progress):
        raise KeyboardInterrupt

    sys.modules["studies.gram"].study = replace(STUDY, run=stop)
    assert _cli.main(["run", "gram", "--out", str(tmp_path / "r")]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "gramm"], "Unknown study 'gramm'; expected one of gram, quickstart, dense,"),
        (["list", "nothing"], "Unknown study 'nothing'"),
        (["run", "gram", "--set", "size=3"], "Unknown setting 'size'"),
        (["run", "gram", "--set", "sizes=x"], "sizes='x' does not fit"),
        (["run", "gram", "--set", "sizes=1"], "expected at least 2"),
        (["run", "gram", "--seed", "1", "--set", "seed=2"], "given twice"),
        (["report", "gram", "--out", "nowhere"], "No run of gram at nowhere; start one with"),
        (["report", "gram"], "No run of gram at runs"),
        (["report", "gram", "--out", "x", "--seed", "1"], "drop --set and --seed"),
    ],
)
def test_bad_commands_are_answered_and_make_nothing(
    registered, tmp_path, monkeypatch, capsys, words, part
):
    monkeypatch.chdir(tmp_path)
    assert _cli.main(words) == 2
    assert part in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_listed_study_can_be_imported():
    assert {"quickstart", "dense", "reinforcement"} <= set(_study.known_studies())
    for name in _study.known_studies():
        study = study_named(name)
        assert study.name == name
        assert study.tasks(study.config())


def test_a_folder_that_cannot_be_made_is_answered(tmp_path, quiet):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StudyError, match=r"cannot be made \(.*choose another --out"):
        run_study(STUDY, Config(), tmp_path / "file" / "r", quiet)
