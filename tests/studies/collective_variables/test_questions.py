"""Every question at every size is a set of trainings that its system accepts."""

import pytest

from studies._errors import StudyError
from studies._folder import digest
from studies._study import study_named
from studies.collective_variables import Config, study
from studies.collective_variables._config import tasks
from studies.collective_variables._questions import QUESTIONS, question
from studies.systems import SYSTEMS
from studies.systems._study import study_of

TIERS = ("smoke", "cores", "gpu")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_training_is_one_that_its_system_accepts(name, tier):
    trials = tasks(Config(name, tier))
    assert len(trials) >= 2
    for trial in trials:
        config = trial.config
        assert isinstance(config, SYSTEMS[trial.system].config)
        for setting, value in trial.settings:
            assert getattr(config, setting) == value


@pytest.mark.parametrize("name", QUESTIONS)
def test_trainings_have_names_of_their_own_that_the_seed_changes(name):
    ids = {digest(study, trial) for trial in tasks(Config(name))}
    others = {digest(study, trial) for trial in tasks(Config(name, seed=1))}
    assert len(ids) == len(tasks(Config(name)))
    assert not ids & others


def test_the_sweep_of_the_speed_bar_is_what_the_bar_says():
    asked = question("size", "cores")
    assert asked.grid == {"width": (4, 16, 64, 256), "depth": (1, 3, 6)}
    base = asked.base
    assert (base["dataset"], base["seeds"], base["batch_size"]) == ("mnist5k", 10, 128)
    assert base["probe"] == 256
    assert base["steps"] * base["batch_size"] >= 30 * 4000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"question": "sise"}, "question='sise'.*expected one of size"),
        ({"tier": "laptop"}, "tier='laptop'.*smoke, cores, gpu"),
    ],
)
def test_bad_settings_are_answered(settings, message):
    with pytest.raises(StudyError, match=message):
        Config(**settings)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_a_study_of_its_own(name):
    made = study_named(name)
    assert made is study_of(name)
    config = made.config()
    assert made.tasks(config) == (config,)
    assert config.label
