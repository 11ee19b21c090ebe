"""The quickstart from end to end, through its command line, killed midway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from ntkstats import plots
from ntkstats.recording import open_run
from studies import _cli
from studies._errors import StudyError
from studies.quickstart import Config
from studies.quickstart._answer import change

ROOT = Path(__file__).parents[2]
TINY = [
    "dataset=digits",
    "steps=24",
    "records=4",
    "probe=20",
    "seeds=3",
    "narrow=4",
    "wide=24",
    "channels=3",
    "batch_size=32",
]


def command(*words):
    return [sys.executable, "-m", "studies", *words]


@pytest.fixture(scope="module")
def killed_and_finished(tmp_path_factory):
    """Run it, kill it in the second network, run it again; gives the folder and both accounts."""
    folder = tmp_path_factory.mktemp("studies") / "quick"
    words = command("run", "quickstart", "--out", str(folder), "--set", *TINY)
    # What the first process has compiled, the second need not.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    options = {"cwd": ROOT, "env": os.environ | cache}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as first:
        deadline = time.monotonic() + 300
        while not list(folder.glob("tasks/wide*.partial/run.sqlite")):
            assert time.monotonic() < deadline
            assert first.poll() is None, first.stderr.read().decode()
            time.sleep(0.02)
        first.kill()
        assert first.wait() == -signal.SIGKILL
    after_kill = {p.name: p.stat().st_mtime_ns for p in folder.glob("tasks/*/run.sqlite")}
    names = sorted(p.name for p in (folder / "tasks").iterdir())
    second = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert second.returncode == 0, second.stderr
    return folder, names, after_kill, second


@pytest.fixture
def folder(killed_and_finished):
    return killed_and_finished[0]


def test_killed_run_keeps_the_finished_network_and_continues(killed_and_finished):
    folder, names, _, second = killed_and_finished
    assert [n.split("-")[0] for n in names] == ["narrow", "wide"]
    assert names[1].endswith(".partial")
    assert "narrow MLP (width 4): finished before" in second.stderr
    assert "wide MLP (width 24): 24 steps in" in second.stderr
    assert not list(folder.glob("tasks/*.partial"))
    assert len(list(folder.glob("tasks/*/run.sqlite"))) == 3


def test_it_says_where_figure_and_runs_are(killed_and_finished):
    folder, _, _, second = killed_and_finished
    for name in ("quickstart.pdf", "quickstart.png", "quickstart.json", "quickstart.md"):
        assert f"written  {folder / name}" in second.stdout
        assert (folder / name).stat().st_size > 0
    assert f"runs     {folder}" in second.stdout


def test_every_network_is_recorded_from_initialisation_to_the_end(folder):
    for path in folder.glob("tasks/*/run.sqlite"):
        ds = open_run(path)
        assert ds.sizes["member"] == 3
        assert (ds.step.values[0], ds.step.values[-1]) == (0, 24)
        for field in ("entropy", "trace", "loss", "accuracy", "loss_test", "accuracy_test"):
            assert np.isfinite(ds[field]).all()
        np.testing.assert_allclose(ds.eigenvalues.sum("eigenvalue"), ds.trace, rtol=1e-4)
        assert (ds.entropy <= np.log(20) + 1e-5).all()
        # seeds differ from the beginning, and training helps
        assert len(np.unique(ds.entropy.values[0])) == 3
        assert ds.loss.values[-1].mean() < ds.loss.values[0].mean()


def test_words_and_numbers_agree_with_the_stored_runs(killed_and_finished):
    folder, _, _, second = killed_and_finished
    found = json.loads((folder / "quickstart.json").read_text())
    runs = {}
    for path in folder.glob("tasks/*/"):
        label = json.loads((path / "task.json").read_text())["config"]["label"]
        runs[label] = open_run(path / "run.sqlite")
    assert [n["label"] for n in found["networks"]] == [
        "narrow MLP (width 4)",
        "wide MLP (width 24)",
        "CNN (channels 3)",
    ]
    page = (folder / "quickstart.md").read_text()
    for network in found["networks"]:
        c = change(runs[network["label"]].entropy)
        assert network["entropy"] == c._asdict()
        assert network["run_id"] == runs[network["label"]].attrs["run_id"]
        [line] = [
            li for li in second.stdout.splitlines() if li.startswith(f"- {network['label']}: ")
        ]
        assert line in page
        assert f"changes by {c.mean:+.3f} nat" in line
        assert f"{c.low:+.3f} to {c.high:+.3f}" in line
        assert (f"NTK {c.verdict}." in line) or c.verdict == "undecided"


def test_figure_names_its_runs(folder):
    said = json.loads((folder / "quickstart.runs.json").read_text())
    ids = {open_run(p).attrs["run_id"] for p in folder.glob("tasks/*/run.sqlite")}
    assert {r["run_id"] for r in said["runs"]} == ids
    with Image.open(folder / "quickstart.png") as image:
        assert json.loads(image.text["Description"]) == said


def test_other_figures_can_be_drawn_from_the_stored_runs(folder):
    [path] = folder.glob("tasks/cnn*/run.sqlite")
    ds = open_run(path)
    ax = plots.spectra(ds, steps=[0, 24])
    lam = np.clip(ds.eigenvalues.values[0], 0, None)
    drawn = ax.get_lines()[0].get_ydata()
    shares = lam.astype(np.float64) / lam.sum(1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(drawn[:5], np.median(shares, 0)[:5], rtol=1e-6)
    assert len(plots.eigenvalue_paths(ds, top=3).get_legend().get_texts()) == 3
    layers = [t.get_text() for t in plots.layer_shares(ds).get_legend().get_texts()]
    assert layers == ["Dense_0", "Conv_0"]
    plt.close("all")


def test_second_run_trains_nothing_and_report_gives_the_same_files(folder, capsys):
    stores = {p: p.stat().st_mtime_ns for p in folder.glob("tasks/*/run.sqlite")}
    files = [folder / f"quickstart.{kind}" for kind in ("pdf", "png", "json", "md")]
    before = {p: p.read_bytes() for p in files}
    for p in files:
        p.unlink()
    assert _cli.main(["report", "quickstart", "--out", str(folder)]) == 0
    assert {p: p.read_bytes() for p in files} == before
    capsys.readouterr()
    assert _cli.main(["run", "quickstart", "--out", str(folder), "--set", *TINY]) == 0
    assert capsys.readouterr().err.count("finished before") == 3
    assert {p: p.stat().st_mtime_ns for p in folder.glob("tasks/*/run.sqlite")} == stores


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--set", "stepz=3"], "Unknown setting 'stepz'; expected one of dataset, networks"),
        (["--set", "steps=many"], "expected a whole number"),
        (["--set", "steps=0"], "steps=0; expected a positive number"),
        (["--set", "dataset=cifar"], "expected one of mnist5k, digits"),
        (["--set", "networks=narrow,vit"], "expected some of narrow, wide, cnn"),
        (["--set", "networks=cnn,cnn"], "each once"),
        (["--set", "channels=0"], "channels=(0,)"),
        (["--set", "probe=1"], "expected at least 2"),
        (["--set", "dataset=digits", "probe=9999"], "digits has 1438 training images"),
        (["--set", "dataset=digits", "batch_size=9999"], "digits has 1438 training images"),
    ],
)
def test_bad_settings_are_answered(tmp_path, capsys, words, part):
    assert _cli.main(["run", "quickstart", "--out", str(tmp_path / "q"), *words]) == 2
    assert part in capsys.readouterr().err
    assert not list(tmp_path.glob("q/tasks/*"))


def test_default_settings_are_three_networks_of_five_seeds():
    config = Config()
    assert (config.networks, config.seeds, config.dataset) == (
        ("narrow", "wide", "cnn"),
        5,
        "mnist5k",
    )
    with pytest.raises(StudyError):
        Config(seeds=0)
