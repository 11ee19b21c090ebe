"""Counting and measuring landscapes that are made up, and the page of the documentation."""

import json

import numpy as np
import pytest

from ntkstats.landscape import network_from_arrays
from studies import _study
from studies._errors import StudyError
from studies.ml_landscapes import Config, study
from studies.ml_landscapes.__main__ import published
from studies.ml_landscapes._numbers import TEMPERATURES, Passes, excess, heat_peak, ranked


def two_levels(gap, ratio, dim=10):
    """Two minima, the upper one ``ratio`` times as wide."""
    log_det = [0.0, -2 * np.log(ratio)]
    return network_from_arrays([0.0, gap], [], [], minima_log_det=log_det, dim=dim)


def test_the_peak_of_two_levels_is_that_of_schottky():
    gap, ratio = 0.1, 50.0
    network = two_levels(gap, ratio)
    factor = ratio * np.exp(-gap / TEMPERATURES)
    schottky = (gap / TEMPERATURES) ** 2 * factor / (1 + factor) ** 2
    np.testing.assert_allclose(excess(network) * 5, schottky, atol=1e-10)
    temperature, height, peaks = heat_peak(network)
    assert peaks == 1
    assert temperature == TEMPERATURES[schottky.argmax()]
    assert height == pytest.approx(1 + schottky.max() / 5)


def test_one_minimum_has_no_peak():
    temperature, height, peaks = heat_peak(
        network_from_arrays([0.0], [], [], minima_log_det=[0.0], dim=4)
    )
    assert peaks == 0
    assert np.isnan([temperature, height]).all()


def test_low_barriers_are_those_up_to_the_median():
    nothing = np.zeros(5)
    found = Passes(np.arange(5), np.array([3.0, 1.0, 2.0, 9.0, 2.0]), nothing, nothing, nothing)
    assert list(found.low) == [False, True, True, False, True]
    none = Passes(*(np.zeros(0),) * 5)
    assert none.low.size == 0


def test_few_minima_have_no_rank_correlation():
    assert np.isnan(ranked(np.arange(4.0), np.arange(4.0)))
    assert np.isnan(ranked(np.arange(6.0), np.ones(6)))
    assert ranked(np.arange(6.0), -(np.arange(6.0) ** 3)) == pytest.approx(-1)


def test_every_landscape_is_a_task_once():
    assert _study.study_named("ml_landscapes") is study
    config = Config(xor_hidden=(1, 2), xor_l2=(1e-2,), iris_l2=(1e-2, 1e-3), seeds=3)
    made = study.tasks(config)
    labels = [task.label for task in made]
    assert len(set(labels)) == len(labels) == 2 + 2 * 3
    assert labels[0] == "xor, 1 hidden, l2 0.01"
    assert labels[-1] == "iris, 3 hidden, l2 0.001, split 2"
    assert len({task.saddle_starts for task in made}) == 1
    large = study.tasks(Config(xor_hidden=(3,), saddle_starts=10, more=3))
    assert {task.saddle_starts for task in large if task.data == "xor"} == {30}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds=0"),
        ({"iris_l2": (1e-2, 0.0)}, "expected positive numbers"),
        ({"xor_hidden": ()}, "xor_hidden=''"),
        ({"xor_l2": (0.1, 0.1)}, "each once"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(StudyError, match=message):
        Config(**settings)


def test_the_page_shows_the_figures_where_they_were_copied_to(tmp_path):
    report = tmp_path / "run"
    report.mkdir()
    (report / "report.md").write_text("Words.\n\n![A](heat.svg)\n\n*B*\n")
    (report / "heat.svg").write_text("<svg/>")
    (report / "answers.json").write_text(json.dumps({"a": 1}))
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "landscape-study.md").write_text("Mine.\n\n<!-- report -->\n<!-- /report -->\n")
    names = [path.name for path in published(report, docs)]
    assert names == ["landscape-study.md", "study-heat.svg", "study-answers.json"]
    page = (docs / "landscape-study.md").read_text()
    assert "![A](landscape/study-heat.svg)" in page
    assert page.startswith("Mine.\n")
    assert (docs / "landscape" / "study-heat.svg").read_text() == "<svg/>"


@pytest.mark.slow
def test_small_landscapes_are_searched_and_reported(tmp_path):
    from studies import _cli

    words = "xor_hidden=1 xor_l2=1e-2 iris_hidden=2 iris_l2=1e-4 seeds=2"
    more = "starts=200 saddle_starts=200 rounds=1 top=2"
    sets = [word for pair in (words + " " + more).split() for word in ("--set", pair)]
    assert _cli.main(["run", "ml_landscapes", "--out", str(tmp_path / "run"), *sets]) == 0
    answers = json.loads((tmp_path / "run" / "answers.json").read_text())
    xor, *iris = answers["landscapes"]
    assert (xor["minima"], xor["minima_raw"], xor["saddles"], xor["morse_sum"]) == (5, 9, 4, 1)
    assert len(iris) == 2
    assert all(1 / 3 < row["lowest_accuracy"] <= 1 for row in iris)
    over = answers["over_splits"]["0.0001"]["minima"]
    assert over["value"] == np.mean([row["minima"] for row in iris])
    text = (tmp_path / "run" / "report.md").read_text()
    for name in ("counts", "trees", "heat", "barriers"):
        assert f"({name}.svg)" in text
        assert (tmp_path / "run" / f"{name}.svg").read_text().startswith("<?xml")
