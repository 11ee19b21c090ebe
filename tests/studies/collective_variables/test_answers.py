"""Verdicts from tables that are made up so that the answer is known."""

import re

import numpy as np
import pytest
import xarray as xr

from ntkstats.analysis import Interval
from studies._claims import claim, difference, said, verdict
from studies.collective_variables._answers import (
    HURT_AFTER,
    corrupted,
    damage,
    fall,
    of_batch,
    of_corruption,
    of_size,
)
from studies.sweeps._numbers import places

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64])
SEEDS = 6


def table(grid, curve, **fields):
    """A table with ``entropy = curve(place)`` (T,), seeds apart by a little noise."""
    names, shape = list(grid), tuple(len(v) for v in grid.values())
    rng = np.random.default_rng(0)
    data = {name: np.zeros((*shape, SEEDS, STEPS.size)) for name in ("entropy", "trace", *fields)}
    for index in np.ndindex(*shape):
        place = {name: grid[name][i] for name, i in zip(names, index, strict=True)}
        for name, make in {"entropy": curve, "trace": lambda p: 1 + curve(p), **fields}.items():
            noise = 0.01 * rng.normal(size=(SEEDS, STEPS.size))
            data[name][index] = make(place) + noise
    variables = {name: ((*names, "seed", "step"), values) for name, values in data.items()}
    variables["recorded"] = ((*names, "step"), np.ones((*shape, STEPS.size), bool))
    variables["diverged"] = ((*names, "seed"), np.zeros((*shape, SEEDS), bool))
    coords = {**{k: list(v) for k, v in grid.items()}, "seed": np.arange(SEEDS), "step": STEPS}
    return xr.Dataset(variables, coords)


def falling(amount):
    return 3.0 - amount * np.log1p(STEPS) / np.log1p(STEPS[-1])


SIZES = {"width": (4, 16, 64), "depth": (1, 3)}


def verdicts(answer):
    return [c.verdict for c in answer.claims]


def test_a_world_in_which_the_claims_hold():
    made = table(SIZES, lambda p: falling(1.0 if p["width"] == 4 and p["depth"] == 1 else -0.5))
    narrow, deep, *_ = of_size(made).claims
    assert narrow.verdict == "mixed"  # width 4, depth 3 rises
    assert deep.verdict == "supported"
    assert re.search(r"width 4, depth 1: -(1.0|0.99)", narrow.evidence)


def test_a_world_in_which_they_do_not():
    made = table(SIZES, lambda p: falling(-1.0 if p["width"] == 4 else 0.2 * p["depth"]))
    narrow, deep, *_ = verdicts(of_size(made))
    assert narrow == "contradicted"
    assert deep == "mixed"


def test_a_world_in_which_nothing_happens():
    answer = of_size(table(SIZES, lambda _: falling(0.0)))
    assert set(verdicts(answer)) <= {"undecided", "mixed"}
    assert verdicts(answer)[2:] == ["undecided", "undecided"]


def test_batches_are_compared_seed_by_seed():
    grid = {"width": (8,), "batch_size": (16, 64)}
    made = table(grid, lambda p: falling(1.0 if p["batch_size"] == 16 else 0.3))
    (found,) = of_batch(made).claims
    assert found.verdict == "supported"
    assert re.search(r"batch_size 64 less 16: -(0.7|0.69)", found.evidence)


def test_the_fall_is_that_below_the_start():
    (place,) = places(table({"width": (4,)}, lambda _: np.array([3.0, 2, 1, 1, 2, 3, 4, 5])))
    np.testing.assert_allclose(fall(place), 2.0, atol=0.05)


def test_damage_is_what_the_loss_is_above_that_of_the_control():
    grid = {"width": (8,), "corrupt_at": (8, 64)}

    def loss(place):
        learnt = 3.0 - falling(-1.0) / 2
        return learnt + 1.5 * (place["corrupt_at"] < STEPS)

    made = table(grid, lambda _: falling(1.0), loss_test=loss)
    ((place, control),) = corrupted(made)
    assert control.values["corrupt_at"] == 64
    trace, hurt = damage(place, control)
    assert STEPS[-1] < 8 + HURT_AFTER  # then to the end
    np.testing.assert_allclose(hurt, 1.5, atol=0.1)
    np.testing.assert_allclose(trace, 1 + falling(1.0)[4], atol=0.05)


@pytest.mark.parametrize(("sign", "expected"), [(1, "supported"), (-1, "contradicted")])
def test_damage_that_goes_with_the_trace_is_found(sign, expected):
    grid = {"width": (8,), "corrupt_at": (2, 8, 16, 64)}

    def loss(place):
        trace = 1 + falling(-1.0)[list(STEPS).index(place["corrupt_at"])]
        return np.where(place["corrupt_at"] < STEPS, 5 + sign * trace, 1.0)

    answer = of_corruption(table(grid, lambda _: falling(-1.0), loss_test=loss))
    assert answer.claims[0].verdict == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(0.1, 0.3)], "supported"),
        ([(-0.3, -0.1)], "contradicted"),
        ([(0.1, 0.3), (-0.3, -0.1)], "mixed"),
        ([(0.1, 0.3), (-0.1, 0.3)], "supported"),
        ([(-0.1, 0.3)], "undecided"),
        ([(np.nan, np.nan)], "undecided"),
        ([], "undecided"),
    ],
)
def test_verdicts(parts, expected):
    assert verdict([Interval((a + b) / 2, a, b, 5) for a, b in parts], 1) == expected


def test_numbers_are_said_with_as_many_digits_as_tell_something():
    assert said(Interval(0.2, 0.1, 0.3, 5)) == "0.20 [0.10, 0.30]"
    assert said(Interval(-3897304.6, -5899503.3, 12.0, 5)) == "-3.9e+06 [-5.9e+06, 12.00]"


def test_a_claim_says_its_numbers():
    said = str(claim("It rises", 1, [("here", Interval(0.2, 0.1, 0.3, 5))]))
    assert said == "It rises: SUPPORTED (1 for, 0 against, of 1). here: 0.20 [0.10, 0.30]."


def test_seeds_are_paired():
    one = np.array([1.0, 5.0, 9.0])
    part = difference(one + np.array([0.1, 0.11, 0.09]), one)
    assert 0.07 < part.low < part.high < 0.13
