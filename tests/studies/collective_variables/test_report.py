"""All questions, trained for real at the smallest size, and their page."""

import json

import pytest

from studies.collective_variables import Config, _page, study
from studies.collective_variables._questions import QUESTIONS
from studies.sweeps import report_sweep, run_sweep, sweep


@pytest.mark.slow
def test_every_question_is_trained_answered_and_drawn(tmp_path):
    made = sweep(study, {"question": tuple(QUESTIONS)}, base=Config(tier="smoke"))
    run_sweep(made, tmp_path)
    report = report_sweep(tmp_path, study)
    page = (tmp_path / "report" / "index.html").read_text()
    answers = json.loads((tmp_path / "report" / "answers.json").read_text())
    assert list(answers) == list(QUESTIONS)
    for name in QUESTIONS:
        figures = [f for f in report.files if f.name.startswith(f"{name}-")]
        assert figures, name
        for figure in figures:
            beside = json.loads(figure.with_suffix(".runs.json").read_text())
            assert len(beside["runs"]) >= 2
            assert all(run["run_id"] for run in beside["runs"])
        assert f"{name}: " in page
        assert answers[name]["time"]["tasks"] >= 2
    _page.keep(tmp_path / "report", tmp_path / "kept")
    parts = _page.parts(tmp_path / "kept")
    assert set(parts) == {"summary", *QUESTIONS}
    assert parts["summary"].count("\n") == 1 + sum(len(answers[n]["claims"]) for n in QUESTIONS)
