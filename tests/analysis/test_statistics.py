"""Intervals, correlations and power laws against closed forms and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ntkstats.analysis import correlation, mean_interval, pooled_correlation, power_law
from ntkstats.errors import AnalysisError


def test_mean_interval_is_students():
    values = np.array([1.2, 0.7, 3.1, 2.2, 1.9])
    oracle = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = mean_interval(values, confidence=0.9)
    assert found == pytest.approx((values.mean(), oracle.low, oracle.high, 5))


def test_mean_interval_of_few():
    assert mean_interval([np.nan, np.inf]).n == 0
    one = mean_interval([2.0, np.nan])
    assert (one.value, one.n) == (2.0, 1)
    assert math.isnan(one.low)
    assert one.sign == 0
    assert mean_interval([1.0, 1.0]).sign == 1


@pytest.mark.parametrize("n", [4, 10, 50])
def test_correlation_is_that_of_scipy(n):
    draw = np.random.default_rng(n)
    x = draw.normal(size=n)
    y = 0.5 * x + draw.normal(size=n)
    oracle = stats.pearsonr(x, y)
    ends = oracle.confidence_interval(0.95)
    assert correlation(x, y) == pytest.approx((oracle.statistic, ends.low, ends.high, n))
    ranks = correlation(x, y, kind="spearman")
    assert ranks.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert ranks.low < ranks.value < ranks.high


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_correlation_intervals_cover(kind):
    draw = np.random.default_rng(0)
    rho = 0.6
    truth = rho if kind == "pearson" else 6 / np.pi * np.arcsin(rho / 2)  # Pearson (1907)
    covered = 0
    for _ in range(400):
        x = draw.normal(size=20)
        y = rho * x + math.sqrt(1 - rho**2) * draw.normal(size=20)
        found = correlation(x, y, kind=kind)
        covered += found.low <= truth <= found.high
    assert 365 <= covered <= 395


def test_correlation_without_an_answer():
    assert math.isnan(correlation([1.0, 2.0], [1.0, 2.0]).value)
    assert math.isnan(correlation([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]).value)
    three = correlation([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    assert three.value == pytest.approx(0.5)
    assert math.isnan(three.low)
    perfect = correlation([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0])
    assert perfect[:3] == pytest.approx((1, 1, 1))
    assert correlation([1.0, 2.0, 3.0, 4.0, np.nan], [1.0, 2.0, 1.0, 2.0, 9.0]).n == 4


def test_pooling_equal_parts_narrows_and_leaves_group_means_out():
    draw = np.random.default_rng(2)
    x = draw.normal(size=(8, 12))
    y = 0.7 * x + draw.normal(size=(8, 12))
    parts = [correlation(a, b + 100 * i) for i, (a, b) in enumerate(zip(x, y, strict=True))]
    pooled = pooled_correlation(parts)
    z = np.mean([np.arctanh(p.value) for p in parts])
    half = 1.959963984540054 / math.sqrt(8 * 9)
    assert pooled == pytest.approx((np.tanh(z), np.tanh(z - half), np.tanh(z + half), 96))
    assert pooled_correlation([]).n == 0


def test_power_law_is_exact_on_one():
    x = np.array([4, 16, 64, 256])
    found = power_law(x, 5 * x**-0.75)
    assert found.exponent[:3] == pytest.approx((-0.75, -0.75, -0.75))
    assert found.factor == pytest.approx(5)
    assert found.scatter == pytest.approx(0, abs=1e-9)


def test_power_law_interval_is_that_of_the_line():
    draw = np.random.default_rng(1)
    x = np.geomspace(1, 1000, 7)
    y = 2 * x[:, None] ** 0.5 * np.exp(0.1 * draw.normal(size=(7, 4)))
    line = stats.linregress(np.log(x), np.log(y).mean(axis=1))
    half = stats.t.ppf(0.975, 5) * line.stderr
    found = power_law(x, y)
    assert found.exponent == pytest.approx((line.slope, line.slope - half, line.slope + half, 7))
    y[0, 0], y[3, 2] = np.nan, -1.0
    assert found.exponent.value == pytest.approx(power_law(x, y).exponent.value, abs=0.1)


def test_power_law_of_few_sizes():
    assert math.isnan(power_law([2.0], [1.0]).exponent.value)
    two = power_law([1.0, 2.0], [1.0, 4.0])
    assert two.exponent.value == pytest.approx(2)
    assert math.isnan(two.exponent.low)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: mean_interval([[1.0]]), "expected one number a replicate, [R]"),
        (lambda: mean_interval([1.0], confidence=0.0), "confidence=0.0"),
        (lambda: correlation([1.0], [1.0, 2.0]), "x has shape (1,) and y (2,)"),
        (lambda: correlation([1.0], [1.0], kind="kendall"), "kind='kendall'; expected"),
        (lambda: power_law([1.0, 0.0], [1.0, 2.0]), "needs positive sizes"),
        (lambda: power_law([1.0], [1.0, 2.0]), "expected [K] and [K] or [K, R]"),
    ],
)
def test_bad_input_is_answered(call, part):
    with pytest.raises(AnalysisError) as caught:
        call()
    assert part in str(caught.value)
