"""What is asked at every size, and that the data are enough for it."""

import dataclasses

import numpy as np
import pytest

from studies._errors import StudyError
from studies._folder import digest
from studies.data_selection import Config, study
from studies.data_selection._case import case
from studies.data_selection._config import QUESTIONS, tasks
from studies.data_selection._tiers import TIERS
from studies.datasets import load

CASES = [(name, c) for name, tier in TIERS.items() for c in tier.cases]


@pytest.mark.parametrize("tier", TIERS)
def test_every_question_is_asked_and_every_trial_has_a_name_of_its_own(tier):
    trials = tasks(Config(tier=tier))
    assert {t.question for t in trials} == set(QUESTIONS)
    ids = [digest(study, t) for t in trials]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {digest(study, t) for t in tasks(Config(tier=tier, seed=1))}


def test_the_claims_are_tested_where_the_paper_and_the_issue_say():
    places = {(c.dataset, c.network) for c in TIERS["cores"].cases}
    tables = {("auto_mpg", "dense"), ("concrete", "dense")}
    images = {(d, n) for d in ("digits", "mnist5k") for n in ("dense", "convolutional")}
    assert places == tables | images
    for c in (*TIERS["cores"].cases, TIERS["cores"].atoms):
        assert c.repeats >= 10
    assert all(len(c.budgets) >= 2 for c in TIERS["cores"].cases)


def test_other_sizes_are_other_trials():
    (trial, *_) = tasks(Config(tier="smoke", questions=("league",)))
    names = dict(trial.settings)
    assert names["sizes.repeats"] == TIERS["smoke"].cases[0].repeats
    other = dataclasses.replace(trial, settings=(*trial.settings[:-1], ("sizes.repeats", 99)))
    assert digest(study, other) != digest(study, trial)
    # What only correlations need does not make another league.
    assert "sizes.starts" not in names


@pytest.mark.parametrize(("tier", "sizes"), CASES, ids=lambda v: getattr(v, "name", v))
def test_the_data_are_enough(tier, sizes):
    data = load(sizes.dataset)
    # Copies of a row stay on one side of the split, so its sizes vary by a few rows.
    assert len(data.y_train) >= sizes.pool + sizes.validation
    assert len(data.y_test) >= sizes.test
    assert max(sizes.budgets) < sizes.pool


def test_repeats_are_other_splits_and_images_are_averaged():
    sizes = next(c for c in TIERS["cores"].cases if c.name == "mnist5k, dense")
    one, other = (case(sizes, TIERS["cores"].picking, 0, repeat) for repeat in (0, 1))
    assert one.pool[0].shape == (sizes.pool, 14, 14, 1)
    assert not np.array_equal(one.pool[1], other.pool[1])
    raw = load("mnist5k", seed=0).x_train[0, :2, :2]
    np.testing.assert_allclose(one.pool[0][0, 0, 0], raw.mean((0, 1)), rtol=1e-5)
    assert one.network is other.network


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": ("league", "best")}, "expected some of league, starts, atoms, ablations"),
        ({"questions": ()}, "expected some of league"),
        ({"tier": "laptop"}, "tier='laptop'.*smoke, cores, gpu"),
        ({"seed": -1}, "seed=-1; expected 0 or more"),
    ],
)
def test_bad_settings_are_answered(settings, message):
    with pytest.raises(StudyError, match=message):
        Config(**settings)


def test_a_pool_that_the_data_cannot_fill_is_refused():
    sizes = dataclasses.replace(TIERS["smoke"].cases[0], pool=500)
    with pytest.raises(StudyError, match=r"auto_mpg has 31\d training and 7\d test samples"):
        case(sizes, TIERS["smoke"].picking, 0, 0)
