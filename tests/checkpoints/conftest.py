"""What a live recording gives, and a folder of checkpoints."""

from functools import cache

import pytest

import ntkstats as nts
from tests.checkpoints.trainings import PROBE, SAVED, measured, save_npz, trained


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The live recording of each kind of network."""

    @cache
    def recorded(kind):
        model, states = trained(kind)
        path = tmp_path_factory.mktemp("live") / kind
        at = nts.RecordAt.steps(SAVED)
        with nts.Recorder(path, model, PROBE, measured(), at=at) as recorder:
            for step, state in states.items():
                recorder(step, state)
        return nts.open_run(path)

    return recorded


@pytest.fixture
def folder(tmp_path):
    save_npz(trained("plain")[1], tmp_path / "saved")
    return tmp_path / "saved"
