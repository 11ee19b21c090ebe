"""Commands that write pages answer a folder without a report in one line."""

import pytest

from studies.collective_variables import __main__ as collective_variables
from studies.data_selection import __main__ as data_selection
from studies.ml_landscapes import __main__ as ml_landscapes


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (collective_variables, ["{}"]),
        (data_selection, ["docs", "--run", "{}"]),
        (ml_landscapes, ["--study", "{}"]),
    ],
)
def test_a_folder_without_a_report_is_answered(command, words, tmp_path, capsys):
    (tmp_path / "other.svg").write_text("<svg/>")
    with pytest.raises(SystemExit):
        command.main([word.format(tmp_path) for word in words])
    assert "There is no" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other.svg"]


def test_landscapes_know_their_options(capsys):
    with pytest.raises(SystemExit) as ended:
        ml_landscapes.main(["--help"])
    assert ended.value.code == 0
    with pytest.raises(SystemExit):
        ml_landscapes.main(["--sudy", "x"])
    assert "unrecognized arguments" in capsys.readouterr().err
