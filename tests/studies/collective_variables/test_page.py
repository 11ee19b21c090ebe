"""The page of the documentation says what the stored answers say."""

import json
import shutil

import pytest

from studies import _pages
from studies._errors import StudyError
from studies.collective_variables import __main__ as command
from studies.collective_variables import _page
from studies.collective_variables._questions import QUESTIONS


def test_the_page_holds_the_stored_answers():
    page = _page.PAGE.read_text(encoding="utf-8")
    assert _pages.filled(page, _page.parts()) == page, "run python -m studies.collective_variables"


def test_every_question_has_an_answer_and_its_figures_on_the_page():
    assert set(_page.SHOWN) == set(QUESTIONS)
    answers = json.loads((_page.FOLDER / _page.ANSWERS).read_text())
    page = _page.PAGE.read_text(encoding="utf-8")
    for question, names in _page.SHOWN.items():
        assert "missing" not in answers[question]["trainings"], question
        assert f"## {question}\n" in page
        for name in names:
            assert (_page.FOLDER / f"{question}-{name}.svg").exists()
            assert f"collective_variables/{question}-{name}.svg" in page


def test_a_report_is_taken_over_whole(tmp_path):
    report, kept = tmp_path / "report", tmp_path / "kept"
    shutil.copytree(_page.FOLDER, report)
    _page.keep(report, kept)
    assert _page.parts(kept) == _page.parts()
    (report / "size-phase-map.svg").unlink()
    with pytest.raises(StudyError, match="has no size-phase-map"):
        _page.keep(report, kept)
    with pytest.raises(StudyError, match="There is no"):
        _page.keep(tmp_path / "nowhere", kept)


def test_a_wrong_folder_is_answered_on_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main([str(tmp_path)])
    assert "There is no" in capsys.readouterr().err
