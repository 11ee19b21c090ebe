"""The whole study for real at the smallest size."""

import json
import sys

import numpy as np
import pytest

from studies._progress import Lines
from studies._runner import report_study, run_study
from studies.data_selection import Config, study
from studies.data_selection._config import tasks
from studies.data_selection._measure import kept
from studies.data_selection._report import joined
from studies.data_selection._selectors import LEAGUE
from studies.data_selection._trials import run


def test_seeds_of_the_study_are_more_splits():
    one = {"5/trace": np.ones((3, 4, 2)), "names": np.array(["a"])}
    other = {"5/trace": np.zeros((3, 4, 2)), "names": np.array(["a"])}
    both = joined([one, other])
    assert both["5/trace"].shape == (6, 4, 2)
    assert both["names"].tolist() == ["a"]


@pytest.mark.slow
def test_every_question_is_answered_and_drawn(tmp_path):
    config = Config(tier="smoke")
    run_study(study, config, tmp_path, Lines(sys.stderr))
    report = report_study(study, config, tmp_path)
    answers = json.loads((tmp_path / "report" / "answers.json").read_text())
    assert set(answers["league"]) == {"auto_mpg, dense", "digits, convolutional"}
    picked = {row["selector"] for row in answers["league"]["digits, convolutional"]["rows"]}
    assert picked == set(LEAGUE)
    names = {c["name"] for c in answers["claims"]}
    assert {"i/effective_entropy", "i/trace", "ii/loss", "iii/entropy", "iii/trace"} <= names
    assert {f.stem for f in report.files if f.suffix == ".pdf"} == {
        "league", "curves", "sets", "starts", "ablations", "atoms",
    }  # fmt: skip
    # The same config gives the same numbers.
    trial = next(t for t in tasks(config) if t.question == "starts")
    (again := tmp_path / "again").mkdir()
    run(trial, again, Lines(sys.stderr))
    stored = next((tmp_path / "tasks").glob("starts-auto-mpg-*"))
    for name, value in kept(again).items():
        np.testing.assert_allclose(value, kept(stored)[name], rtol=1e-5)
