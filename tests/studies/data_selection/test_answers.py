"""Answers and verdicts from numbers that are made up so that they are known."""

import numpy as np
import pytest

from studies.data_selection._answers import (
    AT_INIT,
    LOSSES,
    atoms,
    contrasts,
    league,
    overview,
    reliability,
    starts,
    within_splits,
)
from studies.data_selection._atoms import METHODS
from studies.data_selection._verdicts import claims

REPEATS, SEEDS, DRAWS = 12, 3, 4


def numbers(names, factor, k=(10, 20), noise=0.02):
    """Random sets have a loss of 2 and an entropy of 0.5; others those times their factors."""
    rng = np.random.default_rng(0)
    table = {}
    for size in k:
        for field in (*LOSSES, *AT_INIT):
            values = 2.0 if field in LOSSES else 0.5
            of = np.array([factor.get((name, field), 1.0) for name in names])
            split = rng.normal(1, 0.3, (REPEATS, 1, 1)) ** 2 + 0.5  # shared, so it drops out
            wobble = 1 + noise * rng.normal(size=(REPEATS, len(names), SEEDS))
            table[f"{size}/{field}"] = values * split / split.mean() * of[:, None] * wobble
    return table


def made(loss=0.9, entropy=1.1):
    names = ["Random"] * DRAWS + ["RND", "MaxNorm"]
    factor = {("RND", f): loss for f in LOSSES} | {("MaxNorm", f): 1.5 for f in LOSSES}
    factor |= {("RND", "effective_entropy"): entropy, ("RND", "trace"): 1.3}
    table = numbers(names, factor)
    return {**table, "names": np.array(names), "seconds": np.ones((REPEATS, len(names)))}


def test_differences_are_paired_and_in_per_cent_of_random():
    found = league(made())
    assert [row["k"] for row in found["random"]] == [10, 20]
    (rnd,) = (r for r in found["rows"] if r["selector"] == "RND" and r["k"] == 10)
    mean, low, high = rnd["validated"]
    assert -11 < mean < -9
    assert low < mean < high < -7  # the splits differ by much more than this
    assert rnd["wins"] > 0.95
    assert rnd["effective_entropy"][0] == pytest.approx(10, abs=1.5)
    order = [row["selector"] for row in overview({"here": found})]
    assert order == ["RND", "MaxNorm"]
    best, worst = overview({"here": found})
    assert (best["better"], best["worse"], best["places"]) == (2, 0, 2)
    assert (worst["better"], worst["worse"]) == (0, 2)


@pytest.mark.parametrize(
    ("loss", "expected"), [(0.9, "supported"), (1.1, "contradicted"), (1.0, "undecided")]
)
def test_a_world_is_told_from_its_opposite(loss, expected):
    found = {"league": {"here": league(made(loss))}}
    by_name = {c["name"]: c for c in claims(found)}
    assert by_name["ii/loss"]["verdict"] == expected
    assert by_name["ii/loss"]["places"] == 2
    assert by_name["iii/trace"]["verdict"] == "supported"
    if expected != "undecided":
        assert "here, 10: " in by_name["ii/loss"]["evidence"]


def test_runs_that_diverged_leave_no_number_but_do_not_break_the_others():
    table = made()
    table["10/final"][:, 4] = np.nan
    rows = {(r["selector"], r["k"]): r for r in league(table)["rows"]}
    assert np.isnan(rows["RND", 10]["final"]).all()
    assert np.isfinite(rows["RND", 20]["final"]).all()
    assert np.isfinite(rows["MaxNorm", 10]["final"]).all()


def test_correlations_are_those_within_splits():
    rng = np.random.default_rng(1)
    offset = np.array([[0.0], [5.0], [10.0]])
    x = rng.normal(size=(3, 40))
    none = within_splits(x + offset, rng.normal(size=(3, 40)) + offset)
    assert none.low < 0 < none.high  # over all splits at once it would be nearly one
    strong = within_splits(x + offset, -x + 0.5 * rng.normal(size=(3, 40)) - offset)
    assert strong.value < -0.7
    assert strong.high < -0.5
    assert within_splits(np.ones((2, 9)), x[:2, :9]).sign == 0


def test_intervals_of_correlations_cover():
    rng = np.random.default_rng(2)
    covered = [
        (part := within_splits(rng.normal(size=(2, 30)), rng.normal(size=(2, 30)))).low
        <= 0
        <= part.high
        for _ in range(60)
    ]
    assert np.mean(covered) > 0.85


def test_reliability_tells_sets_from_noise():
    rng = np.random.default_rng(3)
    of_set = rng.normal(size=(4, 60, 1))
    assert reliability(of_set + 0.1 * rng.normal(size=(4, 60, 4))) > 0.95
    assert abs(reliability(rng.normal(size=(4, 60, 4)))) < 0.4
    assert np.isnan(reliability(of_set))


def test_starting_values_are_answered_for_every_size():
    table = {}
    rng = np.random.default_rng(4)
    for k in (5, 9):
        for field in (*LOSSES, *AT_INIT):
            table[f"{k}/{field}"] = rng.normal(size=(3, 30, 2))
        table[f"{k}/trace"] = -table[f"{k}/validated"]
    rows = starts(table)
    assert [row["k"] for row in rows] == [5, 9]
    assert rows[0]["validated"]["trace"][0] == pytest.approx(-1)
    by_name = {c["name"]: c for c in claims({"starts": {"here": rows}})}
    assert by_name["i/trace"]["verdict"] == "supported"
    assert by_name["i/trace"]["for"] == 2


def test_variants_are_compared_with_one_another():
    variants = [
        ("RND", "as it is"), ("threshold", "0.3"), ("threshold", "0.003"), ("outputs", "1"),
        ("outputs", "128"), ("pairs", "4"), ("start", "restart"), ("norm", "RND, unit inputs"),
        ("norm", "MaxDet"), ("norm", "MaxDet, normalised"), ("norm", "RNDLimit"),
        ("norm", "RNDLimit, normalised"), ("width", "16"), ("width", "1024"), ("width", "limit"),
    ]  # fmt: skip
    names = ["random"] * DRAWS + [value for _, value in variants]
    factor = {("0.3", field): 1.2 for field in LOSSES}
    table = numbers(names, factor, k=(10,))
    share = np.full((REPEATS, len(names)), 0.3)
    share[:, names.index("1024")] = 0.8
    table |= {"10/again": share, "10/limit": share + 0.01 * np.arange(REPEATS)[:, None]}
    table["groups"] = np.array(["random"] * DRAWS + [group for group, _ in variants])
    table["values"] = np.array(names)
    rows = {r["what"]: r["difference"] for r in contrasts(table)}
    width = rows["overlap with the limit, widest less narrowest network"]
    assert width == pytest.approx([0.5] * 3, abs=1e-9)
    strict = rows["test loss, strictest less loosest threshold"]
    assert strict[0] == pytest.approx(-20, abs=3)
    by_name = {c["name"]: c for c in claims({"contrasts": {"here": contrasts(table)}})}
    threshold = by_name["ablation/test loss, strictest less loosest threshold"]
    assert threshold["verdict"] == "supported"


def test_rounds_of_the_tolerance_loop():
    rng = np.random.default_rng(5)
    shape = (REPEATS, 2)
    table = {"sizes": np.tile([20, 40], (REPEATS, 1)), "neighbours": np.tile([0.5, 0.2], (12, 1))}
    table["stop"] = np.array([1] * 9 + [-1] * 3)
    for part in ("test", "minority", "majority"):
        for name in METHODS:
            level = 0.3 if name == "strides" else 0.6
            table[f"{part}/{name}"] = level + 0.02 * rng.normal(size=shape)
    table["minority/strides"][0] = np.nan  # a split without any
    found = atoms(table, METHODS, 0.25)
    assert found["converged"] == 9
    assert found["at_stop"]["size"][0] == 40
    assert found["at_stop"]["neighbours"][0] == pytest.approx(0.2)
    assert found["rounds"][0]["test/strides less random"][0] == pytest.approx(-0.3, abs=0.03)
    by_name = {c["name"]: c for c in claims({"atoms": found})}
    assert by_name["atoms/strides/test"]["verdict"] == "supported"
    assert by_name["atoms/strides/minority"]["verdict"] == "supported"
    assert by_name["atoms/optimism"]["verdict"] == "mixed"
