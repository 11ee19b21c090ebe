"""The words say what the numbers say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from studies.quickstart._answer import change, headline, numbers, sentence

FIELDS = (
    "entropy",
    "effective_entropy",
    "trace",
    "loss",
    "accuracy",
    "loss_test",
    "accuracy_test",
)


def recorded(first, last, between=2.0):
    """A run whose entropy starts at `first` and ends at `last`, one entry a seed."""
    first, last = np.asarray(first, float), np.asarray(last, float)
    rows = np.stack([first, np.full_like(first, between), last])
    da = xr.DataArray(rows, dims=("step", "member"), coords={"step": [0, 10, 100]}, attrs={"n": 50})
    return xr.Dataset(dict.fromkeys(FIELDS, da), attrs={"run_id": "abc"})


def test_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=6), rng.normal(loc=0.5, size=6)
    c = change(recorded(first, last).entropy)
    test = stats.ttest_rel(last, first)
    low, high = test.confidence_interval(0.95)
    assert (c.low, c.high) == (pytest.approx(low), pytest.approx(high))
    assert c.mean == pytest.approx((last - first).mean())
    assert (c.first, c.last) == (pytest.approx(first.mean()), pytest.approx(last.mean()))
    assert (c.verdict == "undecided") == (test.pvalue > 0.05)


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        ([1.0, 1.1, 0.9], [2.0, 2.1, 2.0], "rises"),
        ([2.0, 2.1, 2.0], [1.0, 1.1, 0.9], "falls"),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], "undecided"),
        ([1.0], [3.0], "undecided"),
        ([1.0, 1.0], [1.0, 1.0], "undecided"),
        ([1.0, 1.0], [2.0, 2.0], "rises"),
    ],
)
def test_verdict_follows_the_interval(first, last, verdict):
    c = change(recorded(first, last).entropy)
    assert c.verdict == verdict
    said = sentence("net", recorded(first, last))
    assert said.startswith("net: the entropy of the NTK ")
    assert (f"NTK {verdict}." in said) == (verdict != "undecided")
    assert f"{c.mean:+.3f} nat" in said
    assert f"ln 50 = {math.log(50):.3f}" in said


def test_seeds_that_are_not_finite_are_left_out_and_counted():
    ds = recorded([1.0, 1.1, np.nan, 0.9], [2.0, 2.1, 2.0, np.inf])
    c = change(ds.entropy)
    assert (c.seeds, c.dropped) == (2, 2)
    assert c.mean == pytest.approx(1.0)
    assert "2 seeds, 2 left out because not finite" in sentence("net", ds)


def test_no_finite_seed_is_said_plainly():
    ds = recorded([np.nan, 1.0], [1.0, np.nan])
    assert sentence("net", ds) == "net: no seed has a finite entropy at both ends of training."
    assert change(ds.entropy).verdict == "undecided"


def test_one_seed_has_no_interval_and_no_verdict():
    said = sentence("net", recorded([1.0], [2.0]))
    assert "neither clearly rises nor falls (one seed has no interval)" in said
    assert "no interval from one seed" in said


def test_a_dip_on_the_way_is_told():
    said = sentence("net", recorded([2.0, 2.1], [1.0, 1.1], between=0.5))
    assert "highest at step 0 (2.050 nat) and lowest at step 10 (0.500 nat)" in said


def test_headline_groups_networks_by_verdict():
    up = change(recorded([1.0, 1.1], [2.0, 2.1]).entropy)
    down = change(recorded([2.0, 2.1], [1.0, 1.1]).entropy)
    none = change(recorded([1.0, 2.0], [2.0, 1.0]).entropy)
    said = headline({"a": up, "b": down, "c": none, "d": up})
    assert said == (
        "From initialisation to the end of training the entropy of the NTK rises for a and d; "
        "it falls for b; it has no clear direction for c."
    )


def test_numbers_are_plain_json_with_null_for_what_is_missing():
    found = numbers("net", recorded([1.0], [2.0]))
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["entropy"]["low"] is None
    assert again["entropy"]["mean"] == 1.0
    assert again["run_id"] == "abc"
    assert set(FIELDS) < set(again)
