"""Systems are swept like any other study, from the command line."""

import pytest

from studies import _cli
from studies._study import study_named
from studies.sweeps import table
from studies.sweeps._code import fingerprint
from studies.systems import SYSTEMS


def test_a_system_is_swept_and_reported(tmp_path, capsys):
    settings = ["dataset=digits", "steps=3", "seeds=2", "probe=6", "records=2"]
    words = ["sweep", "dense", "--grid", "width=2,3", "--set", *settings, "--out", str(tmp_path)]
    assert _cli.main(words) == 0
    assert "2 tasks ran" in capsys.readouterr().out
    ds = table(tmp_path)
    assert ds.width.values.tolist() == [2, 3]
    assert ds.entropy.notnull().any()
    assert _cli.main(words) == 0
    assert "2 had been finished before" in capsys.readouterr().out


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_a_fingerprint(name):
    assert fingerprint(study_named(name)) == fingerprint(study_named("quickstart"))
