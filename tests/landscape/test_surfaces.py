"""Surfaces whose stationary points are known to many digits."""

import jax
import numpy as np
import pytest

from ntkstats import landscape
from ntkstats._compat import x64
from ntkstats.landscape._bands import Band, maxima, relax
from tests.landscape.conftest import explored

# x, y, energy and both curvatures; computed independently to ten digits.
MINIMA = (
    (-0.5582236346, 1.4417258418, -146.6995172100, 410.53113469, 4068.19895503),
    (0.6234994049, 0.0280377585, -108.1667241169, 543.83618902, 3005.39586453),
    (-0.0500108230, 0.4666941049, -80.7678181297, 221.03747287, 1479.19702201),
)
SADDLES = (
    (0.2124865820, 0.2929883251, -72.2489401123, -735.24726211, 510.88656547),
    (-0.8220015587, 0.6243128028, -40.6648435087, -750.86266284, 490.24070806),
)


def test_mueller_brown_has_its_five_points(mueller_brown):
    for index, expected in ((0, MINIMA), (1, SADDLES)):
        found = [mueller_brown.points[i] for i in mueller_brown.ids(index)]
        rows = [(*point.theta, point.energy, *point.spectrum) for point in found]
        np.testing.assert_allclose(rows, expected, rtol=1e-10, atol=6e-11)


def test_mueller_brown_is_connected_as_known_and_complete(mueller_brown):
    network = mueller_brown.network()
    assert [sorted(map(int, ends)) for ends in network.ends] == [[1, 2], [0, 2]]
    verdict = mueller_brown.check()
    assert verdict.ok
    assert verdict.morse_sum == 1
    assert verdict.pieces == 1
    assert verdict.zero_modes == {0: 5}
    heights = landscape.barrier_heights(network)
    assert heights[0, 2] - network.minima.energy[2] == pytest.approx(40.1029746, abs=1e-6)
    assert heights[0, 2] - network.minima.energy[0] == pytest.approx(106.0346737, abs=1e-6)
    assert heights[1, 2] - network.minima.energy[2] == pytest.approx(8.5188780, abs=1e-6)
    assert heights[0, 1] == heights[0, 2]


def test_pathways_go_down_all_the_way(mueller_brown):
    network = mueller_brown.network()
    for saddle, ends in zip(network.saddles.id, network.ends, strict=True):
        for side, end in zip((-1, 1), ends, strict=True):
            stored = mueller_brown.path(saddle, side)
            path = stored.path
            assert stored.minimum == network.minima.id[end]
            assert np.all(np.diff(path.energy) < 1e-9)
            assert np.all(np.diff(path.arc) >= 0)
            np.testing.assert_allclose(path.theta[-1], network.minima.theta[end], atol=1e-7)
            chords = np.linalg.norm(np.diff(path.theta, axis=0), axis=1).sum()
            assert chords == pytest.approx(path.arc[-1], rel=1e-3)


def test_elastic_bands_find_the_transition_states(mueller_brown):
    problem = mueller_brown.problem
    ends = np.array([[MINIMA[0][:2], MINIMA[2][:2]], [MINIMA[1][:2], MINIMA[2][:2]]])
    with x64():
        bands = relax(problem, ends, Band())
    tops = maxima(bands)
    # The images hang a little below the pass between two of them.
    assert len(tops) == 2
    for top, saddle in zip(tops, reversed(SADDLES), strict=True):
        assert np.linalg.norm(top - saddle[:2]) < 0.1
    fresh = landscape.Landscape(problem)
    fresh.find_minima(key=jax.random.key(0), starts=100)
    report = fresh.bridge([(0, 2), (1, 2)])
    assert (report.converged, report.new) == (2, 2)
    energies = fresh.network().saddles.energy
    np.testing.assert_allclose(energies, [row[2] for row in SADDLES], rtol=1e-10)


def test_basin_hopping_finds_all_minima_of_mueller_brown():
    scape = landscape.Landscape(landscape.mueller_brown())
    report = scape.hop(key=jax.random.key(0), walkers=32, steps=6, step=0.5, temperature=50.0)
    assert report.starts == 32 * 6
    assert len(scape.network().minima) == 3
    again = scape.hop(key=jax.random.key(0), walkers=32, steps=6, step=0.5, temperature=50.0)
    assert again == report


@pytest.mark.slow
def test_six_hump_camel_has_six_minima_seven_passes_two_tops():
    scape = explored(landscape.six_hump_camel(), 256, top=2)
    network = scape.network()
    low = [-1.0316284535] * 2 + [-0.2154638244] * 2 + [2.1042503103] * 2
    high = [0.0] + [0.5437186010] * 2 + [2.2293571975] * 2 + [2.2294708180] * 2
    np.testing.assert_allclose(network.minima.energy, low, atol=1e-9)
    np.testing.assert_allclose(network.saddles.energy, high, atol=1e-9)
    np.testing.assert_allclose(scape.nodes(2).energy, [2.4962953510] * 2, atol=1e-9)
    kinds = [sorted(np.round(network.minima.energy[ends], 3)) for ends in network.ends]
    a, b, c = -1.032, -0.215, 2.104
    assert kinds == [[a, a], [a, b], [a, b], [b, c], [b, c], [a, c], [a, c]]
    assert scape.check().morse_sum == 1
    assert network.saddles.lowest[0] == pytest.approx(-8.06225775, abs=1e-8)


@pytest.mark.slow
def test_lennard_jones_six_has_two_minima_and_three_passes():
    scape = explored(landscape.lennard_jones(6), 400)
    network = scape.network()
    np.testing.assert_allclose(network.minima.energy, [-12.71206226, -12.30292753], atol=1e-8)
    np.testing.assert_allclose(network.minima.log_det, [56.08487832, 54.42420439], atol=1e-7)
    passes = [-12.07903127, -11.63030727, -11.33403263]
    np.testing.assert_allclose(network.saddles.energy, passes, atol=1e-8)
    assert [sorted(map(int, ends)) for ends in network.ends] == [[0, 1], [1, 1], [1, 1]]
    assert set(network.minima.n_zero) == {6}


# Energy, both minima, lowest curvature (all twelve, from an enumeration of its own).
LJ7 = (
    (-15.44473380, 0, 1, -10.00475),
    (-15.31986444, 1, 2, -9.90103),
    (-15.28342128, 1, 3, -9.97248),
    (-15.09784564, 1, 1, -3.16894),
    (-15.03338435, 0, 2, -6.65987),
    (-15.02643811, 0, 3, -6.76456),
    (-14.81639980, 3, 3, -5.29851),
    (-14.81112965, 3, 3, -4.96208),
    (-14.59694571, 0, 3, -1.73969),
    (-14.56806144, 2, 2, -1.61346),
    (-14.54857294, 3, 3, -1.36120),
    (-12.54893771, 2, 2, -3.99247),
)


@pytest.mark.slow
def test_lennard_jones_seven_has_four_minima_and_twelve_passes():
    scape = landscape.Landscape(landscape.lennard_jones(7))
    scape.find_minima(key=jax.random.key(0), starts=1000)
    for seed in range(12):
        scape.find_saddles(key=jax.random.key(10 + seed), starts=2048)
        if len(scape.network().saddles) == 12:
            break
    scape.connect()
    network = scape.network()
    low = [-16.50538417, -15.93504306, -15.59321094, -15.53306005]
    np.testing.assert_allclose(network.minima.energy, low, atol=1e-8)
    log_dets = [69.94764309, 69.22680918, 67.52027057, 67.48165515]
    np.testing.assert_allclose(network.minima.log_det, log_dets, atol=1e-7)
    ends = np.sort(network.ends, axis=1)
    rows = np.column_stack([network.saddles.energy, ends, network.saddles.lowest])
    np.testing.assert_allclose(rows, LJ7, atol=6e-6)
