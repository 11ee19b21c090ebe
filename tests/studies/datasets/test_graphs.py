"""Graphs: all of them, with exact energies."""

from __future__ import annotations

import numpy as np
import pytest

from studies.datasets import atlas, karate

# connected graphs with n nodes (OEIS A001349)
CONNECTED = {2: 1, 3: 2, 4: 6, 5: 21, 6: 112, 7: 853}


@pytest.fixture(scope="module")
def graphs():
    return atlas()


def whole(data, part):
    return np.concatenate([data.x_train[part], data.x_test[part]])


def test_the_atlas_holds_every_connected_graph(graphs):
    sizes = whole(graphs, "mask").sum(1).astype(int)
    assert {n: int((sizes == n).sum()) for n in CONNECTED} == CONNECTED
    assert len(sizes) == 995


def test_edges_are_symmetric_and_among_nodes_that_exist(graphs):
    edges, mask = whole(graphs, "edges"), whole(graphs, "mask")
    np.testing.assert_array_equal(edges, edges.transpose(0, 2, 1))
    assert set(np.unique(edges)) == {0.0, 1.0}
    np.testing.assert_array_equal(edges * mask[:, :, None], edges)
    np.testing.assert_allclose(whole(graphs, "nodes")[..., 1] * 6, edges.sum(-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "energy"),
    [
        ("complete", 12.0),  # K7: 2 (n - 1)
        ("star", 2 * np.sqrt(6)),  # 2 sqrt(n - 1)
        ("path", 2 / np.tan(np.pi / 16) - 2),  # odd n: 2 cot(pi / (2 n + 2)) - 2
        ("cycle", 2 / np.sin(np.pi / 14)),  # odd n: 2 csc(pi / (2 n))
    ],
)
def test_energies_are_those_of_closed_forms(graphs, name, energy):
    edges = whole(graphs, "edges")
    degrees = np.sort(edges.sum(-1), axis=1)
    sought = {
        "complete": [6] * 7,
        "star": [1] * 6 + [6],
        "path": [1, 1, 2, 2, 2, 2, 2],
        "cycle": [2] * 7,
    }[name]
    [i] = np.flatnonzero((degrees == sought).all(1))
    y = np.concatenate([graphs.y_train, graphs.y_test])[i, 0] * graphs.y_std + graphs.y_mean
    assert y == pytest.approx(energy, rel=1e-5)


def test_targets_are_standardised_by_the_training_graphs(graphs):
    assert graphs.y_train.mean() == pytest.approx(0, abs=1e-5)
    assert graphs.y_train.std() == pytest.approx(1, abs=1e-5)
    assert len(graphs.y_test) == pytest.approx(199, abs=2)


def test_the_karate_club_is_zacharys():
    data = karate()
    assert data.edges.sum() / 2 == 78
    np.testing.assert_array_equal(np.bincount(np.r_[data.y_train, data.y_test]), [17, 17])
    np.testing.assert_array_equal(np.sort(np.r_[data.x_train, data.x_test]), np.arange(34))
    # instructor (0) and officer (33), who fell out, have 16 and 17 friends
    np.testing.assert_array_equal(data.edges.sum(1)[[0, 33]], [16, 17])
    clubs = np.empty(34)
    clubs[np.r_[data.x_train, data.x_test]] = np.r_[data.y_train, data.y_test]
    np.testing.assert_array_equal(clubs[[0, 33]], [0, 1])
