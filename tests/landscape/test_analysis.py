"""Thermodynamics, kinetics, trees and files, against numbers from elsewhere."""

import math

import numpy as np
import pytest

from ntkstats import landscape
from ntkstats.errors import LandscapeError
from ntkstats.landscape import network_from_arrays


def test_graph_transformation_on_a_triangle():
    result = landscape.passage(np.ones((3, 3)), [0], [1])
    assert result.rate == pytest.approx(1.0, rel=1e-14)
    assert result.steady == pytest.approx(1.5, rel=1e-14)
    np.testing.assert_allclose(result.committor, [0, 1, 0.5])


def complete(n):
    rates = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            rates[i, j], rates[j, i] = (i + j) / (i + 1), (i + j) / (j + 1)
    return rates


def test_graph_transformation_on_a_complete_graph_of_ten():
    rates = complete(10)
    there = landscape.passage(rates, [0, 1, 2], [3, 4, 5])
    back = landscape.passage(rates, [3, 4, 5], [0, 1, 2])
    assert there.rate == pytest.approx(5.1013138820442565, rel=1e-13)
    assert back.rate == pytest.approx(3.0, rel=1e-13)
    assert there.steady == pytest.approx(19.933950145409426, rel=1e-13)
    assert back.steady == pytest.approx(6.970856553435547, rel=1e-13)


def test_graph_transformation_on_the_32_corners_of_a_cube_in_five_dimensions():
    # Seen from the target the walk is a chain of distances, whose passage times are known sums.
    corners = np.arange(32)
    apart = np.bitwise_count(corners[:, None] ^ corners[None])
    rates = (apart == 1).astype(float)
    found = landscape.passage(rates, corners[1:].tolist(), [0])
    at = [math.comb(5, j) for j in range(6)]  # corners at each distance
    step = [0.0] + [sum(at[k:]) / (at[k] * k) for k in range(1, 6)]  # mean time from k to k - 1
    expected = np.cumsum(step)[apart[0, 1:]]
    np.testing.assert_allclose(found.mfpt, expected, rtol=1e-12)


def test_passage_agrees_with_a_linear_solver_and_survives_where_it_fails():
    rng = np.random.default_rng(0)
    rates = np.exp(rng.normal(size=(12, 12))) * (rng.random((12, 12)) < 0.6)
    np.fill_diagonal(rates, 0)
    target = [10, 11]
    inner = np.arange(10)
    generator = np.diag(rates.sum(axis=1)) - rates
    times = np.linalg.solve(generator[np.ix_(inner, inner)], np.ones(10))
    result = landscape.passage(rates, list(range(10)), target)
    np.testing.assert_allclose(result.mfpt, times, rtol=1e-11)
    # Rates that differ by 200 orders of magnitude: A <-> C fast, C -> B hardly ever.
    slow = np.zeros((3, 3))
    slow[0, 2] = slow[2, 0] = 1e100
    slow[2, 1] = 1e-100
    assert landscape.passage(slow, [0], [1]).mfpt[0] == pytest.approx(2e100, rel=1e-12)


def test_rates_of_a_network_with_symmetry_are_those_of_all_its_images():
    # A ring of four wells A B A' B': two orbits of two, one orbit of four passes.
    orbit = network_from_arrays(
        [0.0, 0.1], [1.0], [[0, 1]], minima_log_det=[1.0, 2.0], saddles_log_det=[0.5],
        minima_orbit=[2, 2], saddles_orbit=[4],
    )  # fmt: skip
    ring = network_from_arrays(
        [0.0, 0.1, 0.0, 0.1], [1.0] * 4, [[0, 1], [1, 2], [2, 3], [3, 0]],
        minima_log_det=[1.0, 2.0, 1.0, 2.0], saddles_log_det=[0.5] * 4,
    )  # fmt: skip
    few = landscape.passage(landscape.rate_matrix(orbit, 0.3), [0], [1])
    all_ = landscape.passage(landscape.rate_matrix(ring, 0.3), [0, 2], [1, 3])
    assert few.rate == pytest.approx(all_.rate, rel=1e-13)


def test_detailed_balance_holds():
    rng = np.random.default_rng(1)
    n = 6
    ends = np.array([[i, j] for i in range(n) for j in range(i)])
    network = network_from_arrays(
        rng.normal(size=n), 3 + rng.random(len(ends)), ends,
        minima_log_det=rng.normal(size=n), saddles_log_det=rng.normal(size=len(ends)),
        minima_orbit=rng.integers(1, 9, n), saddles_orbit=rng.integers(1, 9, len(ends)),
    )  # fmt: skip
    rates = landscape.rate_matrix(network, 0.7)
    weight = landscape.heat_capacity(network, np.array([0.7])).occupation[0]
    flux = weight[:, None] * rates
    np.testing.assert_allclose(flux, flux.T, rtol=1e-10)


def test_heat_capacity_is_the_derivative_of_the_energy():
    network = network_from_arrays(
        [0.0, 0.3, 0.5], [], [], minima_log_det=[2.0, -1.0, 0.0], minima_orbit=[1, 8, 48], dim=7
    )
    temperature = np.linspace(0.02, 0.5, 20001)
    result = landscape.heat_capacity(network, temperature)
    numeric = np.gradient(result.energy, temperature)
    np.testing.assert_allclose(result.heat_capacity[5:-5], numeric[5:-5], rtol=1e-4)


def test_heat_capacity_with_orbits_beyond_float():
    huge = 2**2000 * 7
    one = network_from_arrays([0.0, 1.0], [], [], minima_log_det=[0, 0], minima_orbit=[3, 6])
    other = network_from_arrays(
        [0.0, 1.0], [], [], minima_log_det=[0, 0], minima_orbit=[3 * huge, 6 * huge]
    )
    t = np.array([0.2, 0.5])
    np.testing.assert_allclose(
        landscape.heat_capacity(one, t).energy, landscape.heat_capacity(other, t).energy
    )


def test_tree_of_a_small_network():
    # 0 and 1 merge at 2, both with 2 at 3; 3 is alone. The pass at 2.5 joins what is joined.
    network = network_from_arrays(
        [0.0, 0.5, 1.0, 0.7], [2.0, 3.0, 2.5, 1.5], [[0, 1], [1, 2], [0, 1], [2, 2]]
    )
    tree = landscape.disconnectivity(network)
    assert list(tree.parent) == [4, 4, 5, -1, 5, -1]
    assert list(tree.level) == [0.0, 0.5, 1.0, 0.7, 2.0, 3.0]
    assert list(tree.leaves) == [1, 1, 1, 1, 2, 3]
    heights = landscape.barrier_heights(network)
    assert heights[0, 1] == 2.0
    assert heights[0, 2] == heights[1, 2] == 3.0
    assert np.isinf(heights[3, :3]).all()


def test_branches_that_meet_at_one_level_meet_in_one_node():
    network = network_from_arrays([0.0, 0.1, 0.2], [1.0, 1.0], [[0, 1], [1, 2]])
    tree = landscape.disconnectivity(network)
    assert list(tree.parent) == [3, 3, 3, -1]


def test_tree_agrees_with_minimax_paths():
    rng = np.random.default_rng(2)
    n, m = 30, 60
    network = network_from_arrays(rng.normal(size=n), 3 + rng.random(m), rng.integers(0, n, (m, 2)))
    heights = landscape.barrier_heights(network)
    best = np.full((n, n), np.inf)
    np.fill_diagonal(best, network.minima.energy)
    for energy, (a, b) in zip(network.saddles.energy, network.ends, strict=True):
        if a != b:
            best[a, b] = best[b, a] = min(best[a, b], energy)
    for k in range(n):  # Floyd and Warshall with maxima instead of sums
        through = np.maximum(best[:, k, None], best[None, k, :])
        off = ~np.eye(n, dtype=bool)
        best[off] = np.minimum(best, through)[off]
    np.testing.assert_array_equal(heights, best)


def test_pathsample_files_round_trip_exactly(xor2, tmp_path):
    network, symmetry = xor2.network(), xor2.problem.symmetry
    landscape.write_pathsample(network, tmp_path / "db", symmetry=symmetry)
    line = (tmp_path / "db" / "min.data").read_text().splitlines()[4].split()
    assert line[2:] == ["8", "1", "1", "1"]  # the origin: the whole group leaves it in place
    read = landscape.read_pathsample(tmp_path / "db", dim=12)
    for mine, theirs in ((network.minima, read.minima), (network.saddles, read.saddles)):
        np.testing.assert_array_equal(mine.energy, theirs.energy)
        np.testing.assert_array_equal(mine.log_det, theirs.log_det)
        assert list(mine.orbit) == list(theirs.orbit)
    np.testing.assert_array_equal(network.ends, read.ends)
    np.testing.assert_array_equal(network.minima.theta, read.minima.theta)
    np.testing.assert_array_equal(network.saddles.theta, read.saddles.theta)
    landscape.write_pathsample(read, tmp_path / "again")
    for name in ("min.data", "ts.data", "points.min", "points.ts"):
        first, second = ((tmp_path / where / name).read_bytes() for where in ("db", "again"))
        assert first == second
    with pytest.raises(LandscapeError, match="nothing is overwritten"):
        landscape.write_pathsample(read, tmp_path / "again")


def test_files_of_pathsample_are_read(tmp_path):
    (tmp_path / "min.data").write_text(
        "   -44.3268014195   158.2464487383   120  1.0 1.0 1.0\n"
        "   -0.414719798478D+02   153.8092000860   2  1.0 1.0 1.0\n"
    )
    (tmp_path / "ts.data").write_text("  -40.5  150.25  1  2  1  1.0 1.0 1.0\n")
    network = landscape.read_pathsample(tmp_path, dim=39)
    np.testing.assert_array_equal(network.minima.energy, [-44.3268014195, -41.4719798478])
    assert [int(size) for size in network.minima.orbit] == [1, 60]
    assert [int(size) for size in network.saddles.orbit] == [120]
    assert network.ends.tolist() == [[1, 0]]


def test_to_networkx_keeps_every_edge(xor2):
    networkx = pytest.importorskip("networkx")
    network = xor2.network()
    graph = network.to_networkx()
    assert graph.number_of_nodes() == 5
    assert graph.number_of_edges() == 16
    assert graph.number_of_edges(0, 0) == 4  # degenerate rearrangements
    assert networkx.is_connected(graph)
    assert graph.nodes[0]["orbit"] == 8
    assert sum(data["degenerate"] for *_, data in graph.edges(data=True)) == 7


def test_missing_pairs_by_every_strategy():
    place = np.array([[0.0], [1.0], [1.5], [4.0]])
    network = network_from_arrays(
        [0.0, 0.3, 0.2, 0.1], [1.0], [[0, 1]], theta=place, minima_log_det=[0.0] * 4
    )
    symmetry = landscape.Symmetry()
    assert landscape.missing_pairs(network, symmetry) == [(1, 2), (2, 3)]
    across = landscape.missing_pairs(network, symmetry, strategy="unconnected")
    assert across == [(1, 2), (2, 3)] or across == [(1, 2), (1, 3)]
    # 1 is joined to 0; of what is lower, 2 is nearest.
    assert (1, 2) in landscape.missing_pairs(network, symmetry, strategy="untrap")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: landscape.heat_capacity(n, np.array([0.0])), "positive"),
        (lambda n: landscape.heat_capacity(n, np.array([1.0])), "log-determinants"),
        (lambda n: landscape.rate_matrix(n, -1.0), "positive"),
        (lambda n: landscape.passage(np.ones((2, 2)), [0], [0]), "without common members"),
        (lambda n: landscape.passage(np.ones((2, 2)), [0], [2]), "from 0 to 1"),
        (lambda n: landscape.passage(-np.ones((2, 2)), [0], [1]), "negative"),
        (lambda n: landscape.passage(np.zeros((2, 2)), [0], [1]), "cannot be reached"),
        (lambda n: landscape.missing_pairs(n, landscape.Symmetry()), "no coordinates"),
        (lambda n: landscape.missing_pairs(n, landscape.Symmetry(), strategy="x"), "expected one"),
        (lambda n: network_from_arrays([0.0], [1.0], [[0, 1]]), "positions from 0 to 0"),
        (lambda n: network_from_arrays([0.0], [], [[0, 0]]), "expected one row each"),
        (lambda n: network_from_arrays([0.0], [], [], minima_log_det=[1, 2]), "one each"),
        (lambda n: landscape.disconnectivity(network_from_arrays([], [], [])), "no minimum"),
        (lambda n: landscape.read_pathsample("nowhere", dim=3), "there is no"),
    ],
)
def test_bad_input_to_analyses_is_refused(call, message):
    network = network_from_arrays([0.0, 0.1], [1.0], [[0, 1]])
    with pytest.raises(LandscapeError, match=message):
        call(network)


def test_broken_files_are_named_with_their_line(tmp_path):
    (tmp_path / "min.data").write_text("1 2 3 1 1 1\n1 2 three 1 1 1\n")
    (tmp_path / "ts.data").write_text("")
    with pytest.raises(LandscapeError, match="line 2"):
        landscape.read_pathsample(tmp_path, dim=3)
