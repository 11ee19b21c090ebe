"""The landscapes of networks that learn exclusive or, known completely."""

from collections import Counter

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ntkstats import landscape
from ntkstats._compat import x64
from tests.landscape.conftest import explored

# nh = 1, weight decay 1e-2: energy, squared norm, lowest curvature, log-determinant, orbit.
ONE = (
    (0.6381080429, 8.104105, 0.02, -17.781492, 2),
    (0.6541502725, 8.434743, 0.02, -17.444586, 2),
    (0.6541502725, 8.434743, 0.02, -17.444586, 2),
    (0.6931471806, 0.0, 0.02, -24.126064, 1),
    (0.6995177339, 6.763014, 0.01374, -17.662233, 2),
)
ONE_PASSES = (
    (0.6938986436, (0, 3), -2.752811e-2, -18.060064),
    (0.6949905943, (1, 3), -2.603961e-2, -16.969880),
    (0.6949905943, (2, 3), -2.603961e-2, -16.969880),
    (0.7017252057, (3, 4), -1.140778e-2, -14.422480),
)
# nh = 2, weight decay 1e-2: energy, log-determinant (PATHSAMPLE's digits), orbit.
TWO = (
    (0.4265388868, -29.387651730, 8),
    (0.4692145569, -28.431657063, 8),
    (0.5929037932, -31.949756504, 8),
    (0.5929037932, -31.949756504, 8),
    (0.6931471806, -43.686179527, 1),
)
TWO_PASSES = (
    (0.6033435857, {(1, 2), (1, 3)}, -5.018853e-2, -27.795904, 8),
    (0.6142992010, {(0, 2), (0, 3)}, -1.089757e-1, -27.713099, 8),
    (0.6381080429, {(1, 1)}, -1.159988e-1, -31.375468, 4),
    (0.6541502725, {(0, 0)}, -1.042206e-1, -31.117066, 4),
    (0.6696479046, {(1, 1)}, -2.537608e-2, -29.789219, 4),
    (0.6855644984, {(0, 1)}, -1.004180e-1, -27.036668, 8),
    (0.6920277030, {(0, 0)}, -3.970451e-2, -29.548909, 4),
    (0.6938986436, {(1, 4)}, -2.752811e-2, -37.789245, 4),
    (0.6949905943, {(0, 4)}, -2.603961e-2, -37.279340, 4),
    (0.6995177339, {(1, 1)}, -6.111431e-2, -31.689805, 4),
)


# nh = 2, weight decay 1e-3: energy, minima (of twins the first), how many such passes.
LITTLE = (
    (0.4058368411, (1, 2), 2),
    (0.4074102659, (0, 2), 2),
    (0.4188650142, (0, 4), 2),
    (0.4316846066, (1, 4), 2),
    (0.5155694082, (1, 1), 1),
    (0.5211576022, (0, 0), 2),
    (0.5284797888, (1, 1), 1),
    (0.5381042200, (0, 0), 2),
    (0.5410615070, (1, 1), 1),
    (0.5671437246, (1, 1), 1),
    (0.6931533199, (1, 6), 1),
    (0.6931617476, (0, 6), 2),
)


def _sorted(ends):
    return tuple(sorted(map(int, ends)))


def test_one_hidden_unit_is_known_completely(xor1):
    network = xor1.network()
    norms = (network.minima.theta**2).sum(axis=1)
    rows = np.column_stack(
        [network.minima.energy, norms, network.minima.lowest, network.minima.log_det]
    )
    expected = [row[:4] for row in ONE]
    np.testing.assert_allclose(rows, expected, atol=6e-6)  # the digits that are known
    assert list(network.minima.orbit) == [row[4] for row in ONE]
    for j, (energy, ends, lowest, log_det) in enumerate(ONE_PASSES):
        assert network.saddles.energy[j] == pytest.approx(energy, abs=1e-9)
        assert network.saddles.lowest[j] == pytest.approx(lowest, abs=1e-8)
        assert network.saddles.log_det[j] == pytest.approx(log_det, abs=1e-6)
        # Two minima of one energy: which is called 1 and which 2 is not known beforehand.
        assert sorted(network.minima.energy[network.ends[j]]) == pytest.approx(
            [ONE[i][0] for i in ends], abs=1e-9
        )
    verdict = xor1.check()
    assert verdict.raw == {0: 9, 1: 8}
    assert verdict.morse_sum == 1


def test_two_hidden_units_are_known_completely(xor2):
    network = xor2.network()
    rows = np.column_stack([network.minima.energy, network.minima.log_det])
    np.testing.assert_allclose(rows, [row[:2] for row in TWO], atol=1e-7)
    assert list(network.minima.orbit) == [row[2] for row in TWO]
    assert len(network.saddles) == 16
    for energy, ends, lowest, log_det, orbit in TWO_PASSES:
        mine = np.flatnonzero(np.abs(network.saddles.energy - energy) < 1e-9)
        assert {tuple(sorted(map(int, network.ends[j]))) for j in mine} == ends
        np.testing.assert_allclose(network.saddles.lowest[mine], lowest, atol=6e-8)
        np.testing.assert_allclose(network.saddles.log_det[mine], log_det, atol=1e-6)
        assert [int(size) for size in network.saddles.orbit[mine]] == [orbit] * len(mine)
    verdict = xor2.check()
    assert verdict.orbits == {0: 5, 1: 16, 2: 9}
    assert verdict.raw == {0: 33, 1: 88, 2: 56}
    assert verdict.morse_sum == 1
    assert verdict.ok


def test_output_weights_balance_at_every_stationary_point(xor2):
    # Weight decay breaks the shift of the logits, so each sum over outputs is driven to zero.
    for point in xor2.points:
        outward, bias = point.theta[4:8].reshape(2, 2), point.theta[10:]
        assert np.abs(outward.sum(axis=0)).max() < 1e-9
        assert abs(bias.sum()) < 1e-9


def test_the_origin_has_its_closed_form(xor2):
    origin = next(point for point in xor2.points if np.abs(point.theta).max() < 1e-9)
    assert origin.energy == pytest.approx(np.log(2), abs=1e-14)
    expected = [0.02] * 11 + [0.52]
    np.testing.assert_allclose(origin.spectrum, expected, atol=1e-12)
    assert origin.log_det == pytest.approx(11 * np.log(0.02) + np.log(0.52), abs=1e-10)
    assert origin.orbit == 1


def test_smaller_networks_are_embedded_in_larger_ones(xor1, xor2):
    energies = np.array([point.energy for point in xor2.points])
    for point in xor1.points:
        assert np.abs(energies - point.energy).min() < 1e-10
    # Two minima of one unit are passes of two.
    passes = xor2.network().saddles.energy
    for energy in (ONE[0][0], ONE[1][0]):
        assert np.abs(passes - energy).min() < 1e-9


def test_orbit_sizes_are_those_of_brute_force(xor2):
    symmetry = xor2.problem.symmetry
    for point in xor2.points:
        from ntkstats.landscape._matching import images

        assert len(images(symmetry, point.theta)) == point.orbit


def test_flow_agrees_with_an_integrator(xor2):
    # Followed by LSODA to rounding, from the same side of three passes.
    problem, network = xor2.problem, xor2.network()
    with x64():
        gradient = jax.jit(jax.grad(problem.loss))
        for j in (0, 9, 10):
            saddle = network.saddles.id[j]
            path = xor2.path(saddle, 1).path
            start = path.theta[1]
            found = solve_ivp(
                lambda _, x: -np.asarray(gradient(x)), (0, 3000), start, method="LSODA",
                rtol=1e-9, atol=1e-11,
            )  # fmt: skip
            assert np.linalg.norm(found.y[:, -1] - path.theta[-1]) < 1e-6
            # Every stored point lies on the exact curve, up to the error that steps may make.
            gap = np.linalg.norm(path.theta[:, :, None] - found.y[None], axis=1).min(axis=1)
            assert gap.max() < 0.05


def test_heat_capacity_counts_images(xor2):
    network = xor2.network()
    temperature = np.array([0.01, 0.02, 0.03, 0.05, 0.1])
    result = landscape.heat_capacity(network, temperature)
    energy = [0.48690662, 0.54978767, 0.62064415, 0.83970606, 1.25743838]
    capacity = [6.15566831, 6.44015774, 8.19978025, 11.75307117, 6.63209978]
    np.testing.assert_allclose(result.energy, energy, atol=2e-8)
    np.testing.assert_allclose(result.heat_capacity, capacity, atol=2e-6)
    fine = landscape.heat_capacity(network, np.linspace(0.04, 0.05, 10001))
    peak = int(np.argmax(fine.heat_capacity))
    assert fine.temperature[peak] == pytest.approx(0.04527, abs=1e-5)
    assert fine.heat_capacity[peak] == pytest.approx(12.12310, abs=1e-4)


def test_images_of_a_point_are_the_point_itself(xor2):
    # What has been found once is found again under any permutation and signs.
    rng = np.random.default_rng(0)
    copies = [xor2.problem.symmetry.random_element(rng, p.theta) for p in xor2.points[:20]]
    from ntkstats.landscape._points import tell_apart

    found = tell_apart(
        xor2.problem,
        xor2.points,
        np.array(copies),
        np.array([point.energy for point in xor2.points[:20]]),
        np.array([point.spectrum for point in xor2.points[:20]]),
    )
    assert list(found.owner) == list(range(20))
    assert found.new == []


@pytest.mark.slow
def test_two_hidden_units_with_little_decay_are_known_completely():
    scape = explored(landscape.xor_network(2, 1e-3), 2048, top=3, saddle_starts=6144)
    network = scape.network()
    low = [0.0835575897, 0.0926731884] + [0.3990908883] * 2 + [0.4187121698] * 2 + [np.log(2)]
    np.testing.assert_allclose(network.minima.energy, low, atol=1e-9)
    assert list(network.minima.orbit) == [8, 8, 8, 8, 8, 8, 1]
    assert len(network.saddles) == 19
    found = Counter(zip(network.saddles.energy.round(8), map(_sorted, network.ends), strict=True))
    # Of two minima with one energy either may come first: they are told by the lower number.
    one_of = {3: 2, 5: 4}
    named = Counter()
    for (energy, ends), times in found.items():
        named[float(energy), tuple(one_of.get(i, i) for i in ends)] += times
    assert sorted((round(e, 6), ends, n) for (e, ends), n in named.items()) == sorted(
        (round(e, 6), ends, n) for e, ends, n in LITTLE
    )
    verdict = scape.check()
    assert verdict.orbits == {0: 7, 1: 19, 2: 10}
    assert verdict.raw == {0: 49, 1: 108, 2: 60}
    assert verdict.morse_sum == 1


@pytest.mark.slow
def test_energies_of_one_unit_at_smaller_decay():
    for decay, energies in (
        (1e-3, [0.5155694082, 0.5211576022, 0.5410615070, np.log(2)]),
        (1e-4, [0.4842412330, 0.4854516279, 0.4897567165, np.log(2)]),
    ):
        scape = landscape.Landscape(landscape.xor_network(1, decay))
        scape.find_minima(key=jax.random.key(0), starts=2048)
        found = scape.network().minima.energy
        np.testing.assert_allclose(np.unique(found.round(9)), energies, atol=2e-9)
        assert len(found) == 5
