"""The table of a sweep, its figures and its page, from real trainings, one of them diverged."""

from __future__ import annotations

import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from ntkstats import analysis
from ntkstats.recording import list_runs, open_run
from studies import _cli, _study
from studies._errors import StudyError
from studies.sweeps import (
    LineScreen,
    _figures,
    compare,
    phases_at,
    report_sweep,
    run_sweep,
    starting_values,
    sweep,
    table,
    to_parquet,
    trends,
)
from studies.sweeps._command import parse_grid
from studies.sweeps._numbers import Place, phases_of, places
from studies.sweeps._report import _failure_rows, warnings
from studies.sweeps._table import _attrs
from tests.studies.sweeps import gram, tiny

TOO_FAST = 1e38


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two widths x two step sizes, the second of which diverges; four seeds each."""
    folder = tmp_path_factory.mktemp("sweep") / "s"
    plan = sweep(tiny.study, {"width": (2, 8), "learning_rate": (0.1, TOO_FAST)}, seeds=4)
    tally = run_sweep(plan, folder, LineScreen(io.StringIO()))
    assert tally == (4, 0, (), 0)
    return folder


@pytest.fixture(scope="module")
def ds(folder):
    return table(folder, tiny.study)


@pytest.fixture(scope="module")
def report(folder):
    return report_sweep(folder, tiny.study)


def test_the_table_holds_every_number_of_every_run(folder, ds):
    assert ds.entropy.dims == ("width", "learning_rate", "seed", "step")
    assert dict(ds.sizes) == {"width": 2, "learning_rate": 2, "seed": 4, "step": 6}
    assert ds.width.values.tolist() == [2, 8]
    seen = set()
    for info in list_runs(folder):
        run = open_run(info.path)
        config = run.attrs["config"]
        here = ds.sel(width=config["width"], learning_rate=config["learning_rate"])
        assert here.run_id.item() == run.attrs["run_id"]
        assert here.status.item() == "finished"
        assert here.task_id.item() in str(info.path)
        for name in ("entropy", "trace", "loss", "loss_test"):
            stored = run[name].transpose("member", "step").values
            np.testing.assert_array_equal(here[name].values, stored)
        seen.add(here.run_id.item())
    assert len(seen) == 4


def test_configs_are_coordinates_and_units_stay(ds):
    assert (ds.seeds.item(), ds.steps.item(), ds.depth.item()) == (4, 40, 1)
    assert ds.label.dims == ("width", "learning_rate")
    assert ds.entropy.attrs["units"] == "nat"
    assert ds.attrs["steps"] == "the same in all runs"
    assert ds.attrs["tasks"] == {"finished": 4}
    assert len(ds.attrs["codes"]) == 1


def test_diverged_runs_are_kept_and_marked(ds):
    assert ds.diverged.sel(learning_rate=TOO_FAST).all()
    assert not ds.diverged.isel(learning_rate=0).any()
    since = ds.diverged_step.sel(learning_rate=TOO_FAST)
    assert (since > 0).all()
    assert np.isfinite(ds.loss.sel(learning_rate=TOO_FAST).isel(step=0)).all()
    assert ds.recorded.all()
    found = phases_at(ds, resamples=0)
    gone = found[f"width 2, learning_rate {TOO_FAST}"]
    assert (gone.phases, gone.seeds, gone.dropped) == ((), 0, 4)


def test_numbers_of_two_conventions_do_not_mix():
    runs = [
        xr.Dataset({"entropy": ("step", [1.0], {"convention": c, "units": "nat", "n": n})})
        for c, n in (("ntkstats", 20), ("znnl", 20), ("ntkstats", 30))
    ]
    assert _attrs(runs[::2], "entropy") == {"convention": "ntkstats", "units": "nat"}
    with pytest.raises(StudyError, match="convention is ntkstats and znnl"):
        _attrs(runs, "entropy")


def test_phases_are_those_of_the_stored_arrays(ds):
    here = ds.sel(width=8, learning_rate=0.1)
    own = analysis.phases(here.step.values, here.entropy.transpose("step", "seed").values)
    found = phases_at(ds.sel(width=[8], learning_rate=[0.1]))["width 8, learning_rate 0.1"]
    assert found == own
    assert found.phases
    tried = [t.size for t in trends(ds, {"width 8, learning_rate 0.1": found})]
    assert tried == ["width", "learning_rate"]


def test_starting_values_are_correlated_within_points(ds):
    each, pooled = starting_values(ds, "trace", "loss_test")
    here = ds.sel(width=2, learning_rate=0.1)
    own = np.corrcoef(here.trace.values[:, 0], here.loss_test.values[:, -1])[0, 1]
    assert each["width 2, learning_rate 0.1"].value == pytest.approx(own)
    assert np.isnan(each[f"width 2, learning_rate {TOO_FAST}"].value)
    assert pooled.n == 8


def test_parquet_has_a_row_for_every_record(ds, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = to_parquet(ds, tmp_path / "t.parquet")
    stored = parquet.read_table(file)
    assert stored.num_rows == 2 * 2 * 4 * 6
    frame = stored.to_pandas().set_index(["width", "learning_rate", "seed", "step"])
    for place in [(2, 0.1, 1, 0), (8, 0.1, 3, 40)]:
        at = dict(zip(("width", "learning_rate", "seed", "step"), place, strict=True))
        assert frame.loc[place].entropy == ds.entropy.sel(at).item()
        assert frame.loc[place].run_id == ds.run_id.sel(width=place[0], learning_rate=place[1])
    about = json.loads(stored.schema.metadata[b"ntkstats"])
    assert about["study"] == "tiny"
    assert about["constant"]["depth"] == 1
    with pytest.raises(StudyError, match="takes a table of a sweep"):
        to_parquet(xr.Dataset(), tmp_path / "u.parquet")


def test_runs_with_different_steps_are_aligned_openly(tmp_path):
    plan = sweep(tiny.study, {"steps": (10, 40), "seed": (0, 5)}, base=tiny.Config(width=2))
    folder = tmp_path / "s"
    run_sweep(plan, folder, LineScreen(io.StringIO()))
    union = table(folder, tiny.study)
    assert union.attrs["steps"].startswith("union of 2 schedules")
    short = union.sel(steps=10)
    assert short.recorded.dims == ("seed", "step")
    recorded = short.recorded.values[0]
    assert short.step.values[recorded].max() == 10
    assert np.isnan(short.entropy.values[:, ~recorded]).all()
    assert np.isfinite(short.entropy.values[:, recorded]).all()
    assert not union.diverged.any()  # what was not recorded has not diverged
    # the grid varies the seed: tasks and members are one dim
    assert union.entropy.dims == ("steps", "seed", "step")
    assert union.seed_base.values.tolist() == [0] * 4 + [5] * 4
    assert union.seed_member.values.tolist() == [0, 1, 2, 3] * 2
    assert len(np.unique(union.entropy.values[1, :, 0])) == 8
    common = table(folder, tiny.study, align="common")
    assert common.recorded.all()
    assert set(common.step.values) < set(union.step.values)
    with pytest.raises(StudyError, match=r"different steps .* pass align='union' or 'common'"):
        table(folder, tiny.study, align="same")
    with pytest.raises(StudyError, match="align='outer'; expected"):
        table(folder, tiny.study, align="outer")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(to_parquet(union, tmp_path / "t.parquet"))
    assert rows.num_rows == int(union.recorded.sum())


def test_failed_and_missing_tasks_have_a_status_and_no_numbers(folder, tmp_path):
    copy = tmp_path / "s"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("report"))
    gone = sorted(copy.glob("tasks/*width-2*"))
    shutil.rmtree(gone[0])
    task = json.loads((gone[1] / "task.json").read_text())["id"]
    shutil.rmtree(gone[1])
    (copy / "failed").mkdir()
    (copy / "failed" / f"{task}.json").write_text(
        json.dumps({"id": task, "label": "x", "state": "failed", "why": "cursed", "attempts": 1})
    )
    ds = table(copy, tiny.study)
    assert ds.attrs["tasks"] == {"failed": 1, "finished": 2, "missing": 1}
    lacking = ds.status.values != "finished"
    assert np.isnan(ds.entropy.values[lacking]).all()
    assert not ds.recorded.values[lacking].any()
    assert warnings(ds)[0].startswith("Not everything is here: 1 missing, 1 failed.")
    assert _failure_rows(copy).rows == [("x", task, "failed", "1", "cursed")]


def test_every_figure_names_its_runs_and_configs(folder, report, ds):
    out = folder / "report"
    names = {p.stem for p in out.glob("*.pdf")}
    assert names == {
        *(f"trajectories-{f}" for f in ("entropy", "trace", "loss", "loss_test")),
        "phase-map",
        "scaling-width",
        "scaling-learning_rate",
        "starting-values",
    }
    for name in names:
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        about = json.loads((out / f"{name}.runs.json").read_text())
        assert {r["run_id"] for r in about["runs"]} == set(ds.run_id.values.ravel())
        assert {r["config"]["width"] for r in about["runs"]} == {2, 8}
        assert about["sweep"] == ds.attrs["sweep"]
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["diverged"] == 8
    assert len(numbers["phases"]) == 4


def test_figures_have_the_width_of_the_venue(ds):
    few = ds.drop_vars(["trace", "loss", "loss_test"])
    for drawn in compare(few, venue="icml", found=phases_at(ds, resamples=0)):
        assert drawn.figure.get_figwidth() == pytest.approx(3.25)
    assert not plt.get_fignums()


def test_too_many_panels_are_said_and_the_rest_is_drawn(ds):
    grid = {"batch": np.arange(14)}
    many = ds.sel(learning_rate=[0.1]).expand_dims(grid).copy()
    many.attrs["grid"] = ["batch", *ds.attrs["grid"]]
    for name in ("recorded", "diverged", "entropy", "trace", "loss", "loss_test"):
        many[name] = many[name].transpose("batch", "width", "learning_rate", ...)
    many = many.transpose("width", "batch", "learning_rate", ...)
    skipped = []
    drawn = [d.name for d in compare(many, found={}, skipped=skipped)]
    assert "scaling-width" in drawn
    assert len(skipped) == 4
    assert "14 panels are more than a page holds (12)" in skipped[0]
    with pytest.raises(StudyError, match="14 panels"):
        list(compare(many, found={}))


def test_long_trajectories_are_thinned(ds):
    place = next(iter(places(ds.sel(learning_rate=[0.1], width=[8]))))
    steps = np.arange(3000)
    long = place.data[["entropy", "diverged"]].interp(step=np.linspace(0, 40, 3000))
    found = phases_of(Place({}, long.assign_coords(step=steps)), resamples=0)
    assert (found.phases[0].start, found.phases[-1].end) == (0, 2999)


def test_colours_differ_in_lightness():
    for n in (2, 5, 9):
        light = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b, _ in _figures.shades(n)]
        assert (np.diff(light) > 0).all()


class Reader(html.parser.HTMLParser):
    """Collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "srcset", "data")]


def test_the_page_stands_alone(folder, report):
    page = folder / "report" / "index.html"
    assert report.files[0] == page
    reader = Reader()
    reader.feed(page.read_text())
    assert len(reader.sources) == 8
    assert all(s.startswith("data:image/svg+xml;base64,") for s in reader.sources)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert not re.search(r"url\(|@import", page.read_text())
    assert "8 runs diverged" in page.read_text()


BROWSERS = (
    os.environ.get("BROWSER", ""),
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)


def test_the_page_opens_in_a_browser(folder, report, tmp_path):
    browser = os.environ.get("BROWSER_FOR_TESTS") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if browser is None:
        pytest.skip("no browser of the Chromium family is installed")
    page = folder / "report" / "index.html"
    # a copy elsewhere: nothing beside it can help; and it says what it made of its images
    probe = (
        "<script>addEventListener('load', () => { document.title = 'loaded ' + "
        "[...document.images].filter(i => i.complete && i.naturalWidth > 100).length + ' of ' + "
        "document.images.length + ' ' + document.querySelectorAll('tbody tr').length; });</script>"
    )
    alone = tmp_path / "alone.html"
    alone.write_text(page.read_text().replace("</body>", probe + "</body>"))
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", alone.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<title>loaded 8 of 8 8</title>" in shown.stdout  # 4 points, 4 runs


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda ds: phases_at(ds, "entropi"), "no field 'entropi'; it holds"),
        (lambda ds: _figures.trajectories(ds, "x"), "no field 'x'"),
        (lambda ds: _figures.scaling(ds, "depth"), "no several positive numbers of 'depth'"),
        (
            lambda ds: _figures.phase_map(ds.isel(learning_rate=[0]), {}),
            "needs two fields of numbers in the grid",
        ),
        (lambda ds: _figures.phase_map(ds, {}), "needs the phases of at least one point"),
    ],
)
def test_figures_that_cannot_be_drawn(ds, call, part):
    with pytest.raises(StudyError) as caught:
        call(ds)
    assert part in str(caught.value)


def test_a_table_of_nothing_is_refused(tmp_path):
    plan = sweep(gram.study, {"size": (4,)})
    with pytest.raises(StudyError, match="No sweep at"):
        table(tmp_path / "s")
    run_sweep(plan, tmp_path / "s", LineScreen(io.StringIO()))
    with pytest.raises(StudyError, match="holds 0 recorded runs; a table takes tasks that leave"):
        table(tmp_path / "s", gram.study)
    bad = sweep(gram.study, {"size": (4,)}, base=gram.Config(mishap="raise@4"))
    run_sweep(bad, tmp_path / "t", LineScreen(io.StringIO()))
    with pytest.raises(StudyError, match=r"No task of the sweep of .* is finished .all 1: failed"):
        table(tmp_path / "t", gram.study)


# --- the command line --------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(_study, "NAMES", ("gram", "tiny"))
    for name, study in (("gram", gram.study), ("tiny", tiny.study)):
        module = type(sys)(f"studies.{name}")
        module.study = study
        monkeypatch.setitem(sys.modules, f"studies.{name}", module)


def test_the_command_line_sweeps_reports_and_says_what_failed(
    registered, folder, report, tmp_path, monkeypatch, capsys
):
    files = [p for p in (folder / "report").iterdir() if p.suffix != ".parquet"]
    before = {p: p.read_bytes() for p in files}
    words = ["sweep", "tiny", "--grid", "width=2,8", f"learning_rate=0.1,{TOO_FAST}"]
    words += ["--seeds", "4", "--out", str(folder)]
    assert _cli.main(words) == 0
    out = capsys.readouterr().out
    assert "0 tasks ran, 4 had been finished before." in out
    assert f"written  {folder / 'report' / 'index.html'}" in out
    assert "rank correlation of width with compression" in out
    assert {p: p.read_bytes() for p in files} == before
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "gram", "--grid", "size=4", "--set", "mishap=raise@4"]
    assert _cli.main(words) == 1
    out = capsys.readouterr().out
    assert "1 failed" in out
    assert "RuntimeError: the matrix is cursed" in out
    [made] = (tmp_path / "runs" / "gram").iterdir()
    assert made.name.startswith("sweep-")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["sweep", "gram"], "The grid is empty; give --grid"),
        (["sweep", "gram", "--seeds", "2", "--grid", "size"], "expected FIELD=VALUE,VALUE"),
        (["sweep", "gram", "--grid", "size=4,x"], "size='4,x' does not fit; expected values"),
        (["sweep", "gram", "--grid", "sise=4"], "Unknown field 'sise'"),
        (["sweep", "gram", "--grid", "size=4", "size=5"], "was given twice"),
        (["sweep", "gram", "--grid", "size=4", "--option", "a"], "expected KEY=VALUE"),
        (["sweep", "gram", "--grid", "size=4", "--option", "a=1"], "Unknown option 'a'"),
    ],
)
def test_bad_commands_are_answered(registered, tmp_path, monkeypatch, capsys, words, part):
    monkeypatch.chdir(tmp_path)
    assert _cli.main(words) == 2
    assert part in capsys.readouterr().err


def test_values_with_commas_go_in_parentheses():
    found = parse_grid(gram.Config, ["shape=(8,16),(16,32),4", "seconds=1,2e3", "seed=3"])
    assert found == {
        "shape": ((8, 16), (16, 32), (4,)),
        "seconds": (1.0, 2000.0),
        "seed": (3,),
    }
