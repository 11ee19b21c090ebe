"""Disconnectivity graphs and pathways are drawn from plain data."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ntkstats import landscape, plots
from ntkstats.errors import PlotError
from ntkstats.landscape import network_from_arrays


@pytest.fixture
def tree():
    network = network_from_arrays([0.0, 0.5, 1.0, 0.7], [2.0, 3.0, 1.5], [[0, 1], [1, 2], [3, 3]])
    return landscape.disconnectivity(network)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_every_minimum_ends_a_branch_and_branches_meet_their_parents(tree):
    ax = plots.disconnectivity(tree)
    lines = ax.collections[0].get_segments()
    assert len(lines) == len(tree.parent) == 6
    for node, line in enumerate(lines):
        np.testing.assert_allclose(line[0], [tree.position[node], tree.level[node]])
        parent = tree.parent[node]
        if parent >= 0:
            np.testing.assert_allclose(line[-1], [tree.position[parent], tree.level[parent]])
    # No two minima at one place.
    assert len(set(tree.position[:4])) == 4
    assert ax.get_ylabel() == "Loss"
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2", "3"]


def test_levels_move_joints_up_to_the_next_one(tree):
    lines = plots.disconnectivity(tree, levels=4).collections[0].get_segments()
    top = 3.0 * 1.06
    ladder = np.linspace(0, top, 4)
    for node in (4, 5):
        assert np.isclose(ladder, lines[node][0][1]).any()
        assert lines[node][0][1] >= tree.level[node]


def test_values_colour_the_branches_of_minima(tree):
    ax = plots.disconnectivity(tree, values=np.array([1.0, 2.0, np.nan, 3.0]), label="NTK entropy")
    colors = ax.collections[0].get_colors()
    assert len({tuple(color) for color in colors[[0, 1, 3]]}) == 3
    np.testing.assert_array_equal(colors[2], colors[5])
    bar = ax.get_figure().axes[1]
    assert bar.get_ylabel() == "NTK entropy"


def test_a_pathway_runs_from_minimum_to_minimum():
    scape = landscape.Landscape(landscape.mueller_brown())
    scape.find_minima(key=jax.random.key(0), starts=100)
    follow = landscape.Follow(max_iterations=100)
    scape.find_saddles(key=jax.random.key(1), starts=100, follow=follow)
    scape.connect()
    network = scape.network()
    saddle = network.saddles.id[0]
    sides = [scape.path(saddle, -1), scape.path(saddle, 1)]
    loss, lowest = plots.pathway(sides, fields=["lowest"])
    x, y = loss.get_lines()[0].get_data()
    assert np.all(np.diff(x) >= 0)
    assert y[0] == pytest.approx(network.minima.energy[network.ends[0, 0]], rel=1e-12)
    assert y[-1] == pytest.approx(network.minima.energy[network.ends[0, 1]], rel=1e-12)
    assert y.max() == network.saddles.energy[0]
    assert lowest.get_ylabel() == "Lowest curvature"
    with pytest.raises(PlotError, match="was not recorded"):
        plots.pathway(sides, fields=["ntk_entropy"])
    with pytest.raises(PlotError, match="both sides"):
        plots.pathway([sides[0], None])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"values": np.ones(3)}, "one a minimum"), ({"levels": 1}, "at least 2")],
)
def test_bad_input_is_refused(tree, settings, message):
    with pytest.raises(PlotError, match=message):
        plots.disconnectivity(tree, **settings)
