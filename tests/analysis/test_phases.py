"""Phases against trajectories whose phases are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ntkstats.analysis import phases
from ntkstats.analysis._segments import best_polylines, choose_knots
from ntkstats.errors import AnalysisError

STEPS = np.unique(np.r_[0, np.round(np.geomspace(1, 1000, 18)).astype(int)])
U = np.log1p(STEPS)


def chain(turns, levels):
    return np.interp(U, np.log1p([0, *turns, 1000]), levels)


def seeds(curve, n=6, noise=0.02, offset=0.3, seed=0):
    draw = np.random.default_rng(seed)
    return curve[:, None] + offset * draw.normal(size=n) + noise * draw.normal(size=(curve.size, n))


@pytest.mark.parametrize("segments", [1, 2, 3, 4])
def test_polylines_are_the_best_of_all(segments):
    draw = np.random.default_rng(3)
    u, y = np.cumsum(draw.uniform(0.1, 1, 9)), draw.normal(size=9)

    def cost(knots):
        return ((y - np.interp(u, u[list(knots)], y[list(knots)])) ** 2).sum()

    inner = itertools.combinations(range(1, 8), segments - 1)
    best = min(((0, *k, 8) for k in inner), key=cost)
    found = best_polylines(u, y, segments)[segments - 1]
    assert tuple(found) == best


def test_a_straight_line_has_no_knots_whatever_its_offset():
    for offset in (0.0, 1e4):
        curves = seeds(offset + 0.3 * U, noise=0.0)
        assert choose_knots(U, curves, 8).tolist() == [0, STEPS.size - 1]


@pytest.mark.parametrize(
    ("turns", "levels", "kinds"),
    [
        ([], (3, 2), ("compression",)),
        ([], (2, 3), ("structure formation",)),
        ([26], (3, 2, 2.6), ("compression", "structure formation")),
        ([3, 87], (3, 3.6, 2, 2), ("structure formation", "compression", "plateau")),
        ([5, 87], (2, 2, 3, 3), ("plateau", "structure formation", "plateau")),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_known_phases_are_found(turns, levels, kinds, noise):
    curve = chain(turns, levels)
    found = phases(STEPS, seeds(curve, noise=noise), resamples=40)
    assert found.kinds == kinds
    assert found.support > 0.8
    assert (found.phases[0].start, found.phases[-1].end) == (0, 1000)
    for one, two in itertools.pairwise(found.phases):
        assert one.end == two.start
    for turn, phase in zip(turns, found.phases, strict=False):
        assert phase.end_interval[0] <= turn <= phase.end_interval[1]
    moves = np.diff(levels)
    tolerance = 0.05
    assert found.compression.value == pytest.approx(-moves[moves < 0].sum(), abs=tolerance)
    assert found.formation.value == pytest.approx(moves[moves > 0].sum(), abs=tolerance)
    assert found.net.value == pytest.approx(levels[-1] - levels[0], abs=tolerance)


def test_changes_are_those_of_the_records_at_the_ends():
    curves = seeds(chain([26], (3, 2, 2.6)))
    found = phases(STEPS, curves, resamples=0)
    turn = np.flatnonzero(found.phases[0].end == STEPS)[0]
    moves = curves[turn] - curves[0]
    assert found.phases[0].change.value == pytest.approx(moves.mean())
    assert found.compression.value == pytest.approx(-moves.mean())
    assert found.compression.low == pytest.approx(-found.phases[0].change.high)


@pytest.mark.parametrize("walk", [False, True])
def test_phases_are_seldom_found_where_there_are_none(walk):
    draw = np.random.default_rng(1)
    wrong = 0
    for _ in range(100):
        noise = draw.normal(size=(STEPS.size, 5))
        noise = np.cumsum(noise, axis=0) if walk else noise
        wrong += phases(STEPS, 3 + 0.05 * noise, resamples=0).kinds != ("plateau",)
    # 5 to 9 % in longer simulations; 17 is four standard deviations above
    assert wrong <= 17


def test_intervals_of_the_compression_cover_it():
    curve = chain([26], (3, 2, 2.6))
    truth = 3 - curve.min()
    covered = 0
    for i in range(60):
        found = phases(STEPS, seeds(curve, noise=0.02, seed=i), resamples=0)
        covered += found.compression.low <= truth <= found.compression.high
    assert covered >= 50  # 95 % nominal; three standard deviations


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("level", [0.0, 2.5, 1e6])
def test_a_constant_is_one_plateau(n, level):
    exact = phases(STEPS, np.full((STEPS.size, n), level), resamples=20)
    assert exact.kinds == ("plateau",)
    assert exact.net.value == 0
    rounded = np.full((STEPS.size, n), level) * (1 + 6e-8 * (-1) ** np.arange(STEPS.size)[:, None])
    assert phases(STEPS, rounded, resamples=0).kinds == ("plateau",)


def test_a_change_that_only_some_seeds_make_is_no_phase():
    flat, falling = np.full_like(U, 3.0), chain([], (3, 2))
    mixed = np.stack([flat, flat, flat, falling], axis=1)
    assert phases(STEPS, mixed).kinds == ("plateau",)


def test_one_seed_has_phases_but_no_intervals():
    found = phases(STEPS, chain([26], (3, 2, 2.6)))
    assert found.kinds == ("compression", "structure formation")
    assert np.isnan([found.support, found.compression.low, found.phases[0].change.high]).all()
    assert np.isnan(found.phases[0].end_interval).all()


def test_diverged_seeds_are_left_out_and_counted():
    curves = seeds(chain([26], (3, 2, 2.6)))
    whole = phases(STEPS, curves[:, :4], resamples=40)
    curves[9:, 4] = np.nan
    curves[3, 5] = np.inf
    found = phases(STEPS, curves, resamples=40)
    assert (found.seeds, found.dropped) == (4, 2)
    assert found._replace(dropped=0) == whole


def test_steps_without_any_record_are_passed_over():
    curves = seeds(chain([26], (3, 2, 2.6)))
    found = phases(STEPS, curves, resamples=40)
    steps = np.r_[STEPS, 2000]
    padded = np.vstack([curves, np.full((1, 6), np.nan)])
    assert phases(steps, padded, resamples=40) == found


@pytest.mark.parametrize(
    ("steps", "values"),
    [([], []), ([0], [2.0]), ([0, 1], [np.nan, np.nan]), ([0, 1, 2], np.full((3, 4), np.nan))],
)
def test_too_little_has_no_phases(steps, values):
    found = phases(steps, np.asarray(values))
    assert found.phases == ()
    assert np.isnan([found.compression.value, found.net.value, found.support]).all()


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([3.0, 2.0], ("compression",)),
        ([2.0, 2.0], ("plateau",)),
        ([2.0, 3.0, 2.0], ("structure formation", "compression")),
    ],
)
def test_the_shortest_trajectories(values, kinds):
    steps = np.arange(len(values))
    noise = 0.01 * np.random.default_rng(0).normal(size=(len(values), 5))
    assert phases(steps, np.array(values)[:, None] + noise).kinds == kinds


def test_least_and_scale_are_obeyed():
    curves = seeds(chain([26], (3, 2, 2.6)))
    assert phases(STEPS, curves, least=0.8, resamples=0).kinds == ("compression", "plateau")
    linear = np.interp(np.arange(50), [0, 10, 49], [3, 2, 3])
    found = phases(np.arange(50), seeds(linear, noise=0.01), scale="linear", resamples=0)
    assert found.kinds == ("compression", "structure formation")
    assert abs(found.phases[0].end - 10) <= 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (([0, 1], [1.0, 2.0, 3.0]), "expected [T] and [T] or [T, R]"),
        (([1, 0], [1.0, 2.0]), "steps are not increasing"),
        (([0, 0], [1.0, 2.0]), "steps are not increasing"),
        (([-1, 0], [1.0, 2.0]), "steps are not increasing"),
        (([0, np.nan], [1.0, 2.0]), "steps are not increasing"),
        ((np.arange(2001), np.zeros(2001)), "2001 records; expected at most 2000"),
    ],
)
def test_bad_arrays_are_answered(arguments, part):
    with pytest.raises(AnalysisError) as caught:
        phases(*arguments)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"confidence": 95}, "confidence=95; expected a probability"),
        ({"confidence": 1.0}, "confidence=1.0; expected a probability"),
        ({"least": -1.0}, "least=-1.0; expected"),
        ({"most_segments": 0}, "most_segments=0"),
        ({"resamples": -1}, "resamples=-1"),
        ({"scale": "cubic"}, "scale='cubic'; expected 'log' or 'linear'"),
    ],
)
def test_bad_options_are_answered(options, part):
    with pytest.raises(AnalysisError) as caught:
        phases([0, 1], [1.0, 2.0], **options)
    assert part in str(caught.value)
