"""Beyond dense Hessians: Krylov modes, curvature from products, trained networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import landscape
from ntkstats._compat import x64
from ntkstats.errors import LandscapeError
from ntkstats.landscape import _modes
from ntkstats.landscape._follow import follower
from ntkstats.landscape._pool import CONVERGED, drain


@pytest.fixture(scope="module")
def network():
    """A regression network of 8 units on smooth data, 33 parameters."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = np.sin(2 * x[:, 0]) * x[:, 1]

    def loss(theta, data):
        x, y = data
        w, b, v, c = jnp.split(theta, [16, 24, 32])
        h = jnp.tanh(x @ w.reshape(2, 8) + b) @ v + c
        return jnp.mean((h - y) ** 2) + 1e-3 * jnp.sum(theta**2)

    unit = np.arange(8)
    index = np.stack([unit, 8 + unit, 16 + unit, 24 + unit], axis=1)
    symmetry = landscape.Symmetry((landscape.Units(index, odd=True, incoming=3),))
    return landscape.Problem(loss, 33, data=(x, y), symmetry=symmetry, name="regression")


@pytest.fixture(scope="module")
def minima(network):
    scape = landscape.Landscape(network)
    scape.find_minima(key=jax.random.key(0), starts=32, batch=256)
    return scape.nodes(0).theta


def test_krylov_modes_agree_with_dense_ones(network):
    with x64():
        x = jnp.asarray(np.random.default_rng(1).normal(size=(33, 8)))
        data = network.data_as(np.float64)
        dense = jax.jit(_modes._dense(network))(x, x[:, :0], data)
        krylov = jax.jit(_modes._krylov(network, 33))(x, x[:, None, :], data)
        np.testing.assert_allclose(krylov.gradient, dense.gradient, atol=1e-12)
        np.testing.assert_allclose(krylov.values, dense.values, atol=1e-8)
        # The gradient lies in the space, whatever its dimension.
        few = jax.jit(_modes._krylov(network, 10))(x, x[:, None, :], data)
        onto = few.displacement(few.overlap)
        np.testing.assert_allclose(onto, few.gradient, atol=1e-10)
        assert np.all(few.values[0] >= dense.values[0] - 1e-10)


@pytest.mark.slow
def test_hybrid_following_finds_transition_states(network, minima, monkeypatch):
    rng = np.random.default_rng(2)
    starts = minima[rng.integers(len(minima), size=16)] + 0.3 * rng.normal(size=(16, 33))
    wanted = np.ones(16, np.int32)
    # The same problem again, since programs are kept for each; only its modes differ.
    twin = landscape.Problem(network.loss, 33, data=network.data, symmetry=network.symmetry)
    monkeypatch.setattr(_modes, "DENSE_UP_TO", 8)
    with x64():
        config = landscape.Follow(tol=1e-9, max_iterations=400)
        search = follower(twin, config)
        data = twin.data_as(np.float64)
        found = drain(search, {"theta": starts, "index": wanted}, data, batch=256)
        done = np.flatnonzero((found["status"] == CONVERGED) & (found["index"] == 1))
        assert len(done) >= 4
        hessian = jax.jit(jax.hessian(twin.value))
        for i in done:
            values = np.linalg.eigvalsh(hessian(jnp.asarray(found["theta"][i]), data))
            assert (values < 0).sum() == 1


def test_sharpness_and_density_agree_with_the_whole_hessian(network, minima):
    theta = minima[0].astype(np.float32)
    dense = np.asarray(jax.hessian(network.value)(jnp.asarray(theta), network.data_as(np.float32)))
    values = np.linalg.eigvalsh(dense.astype(float))[::-1]
    top = landscape.sharpness(network, theta, key=jax.random.key(0), k=3)
    np.testing.assert_allclose(top.values, values[:3], rtol=1e-4)
    density = landscape.hessian_density(network, theta, key=jax.random.key(1), vectors=12, depth=33)
    assert abs(density.trace - values.sum()) < 4 * density.trace_stderr + 1e-3
    assert np.trapezoid(density.density, density.value) == pytest.approx(1.0, abs=1e-3)
    mean = np.trapezoid(density.density * density.value, density.value)
    assert mean * 33 == pytest.approx(density.trace, rel=1e-2)
    assert density.stderr.max() > 0


def test_alignment_removes_the_barrier_of_a_permutation(network, minima):
    rng = np.random.default_rng(3)
    copy = network.symmetry.random_element(rng, minima[0])
    with_barrier = landscape.linear_barrier(network, minima[0], copy, aligned=False)
    without = landscape.linear_barrier(network, minima[0], copy)
    assert with_barrier.barrier > 0.01
    assert without.barrier < 1e-12
    np.testing.assert_allclose(without.loss, without.loss[0], atol=1e-12)


def test_a_trained_curve_is_below_the_straight_line(network, minima):
    line = landscape.linear_barrier(network, minima[0], minima[1])
    curve = landscape.mode_connection(network, minima[0], minima[1], key=jax.random.key(0))
    assert curve.barrier < line.barrier
    np.testing.assert_allclose(curve.theta[0], minima[0], atol=1e-12)
    np.testing.assert_allclose(curve.loss[[0, -1]], line.loss[[0, -1]], rtol=1e-12)


def test_planes_are_normalised_filter_by_filter(network, minima):
    plane = landscape.loss_plane(network, minima[0], key=jax.random.key(0), points=7)
    units = network.symmetry.layers[0].index[:, :3]
    for direction in plane.directions:
        np.testing.assert_allclose(
            np.linalg.norm(direction[units], axis=1), np.linalg.norm(minima[0][units], axis=1)
        )
    assert plane.loss[3, 3] == plane.loss.min()
    corner = minima[0] + plane.a[0] * plane.directions[0] + plane.b[6] * plane.directions[1]
    expected = network.value(corner, network.data)
    assert plane.loss[0, 6] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: landscape.linear_barrier(p, np.ones(3), np.ones(33)), "start has shape"),
        (lambda p: landscape.linear_barrier(p, np.ones(33), np.ones(33), points=0), "points=0"),
        (
            lambda p: landscape.loss_plane(p, np.ones(33), key=jax.random.key(0), extent=0),
            "positive",
        ),
        (lambda p: landscape.sharpness(p, np.ones(2), key=jax.random.key(0)), "theta has shape"),
        (
            lambda p: landscape.linear_barrier(p, np.ones(33), np.full(33, np.nan)),
            "33 entries that are not finite",
        ),
    ],
)
def test_bad_points_are_refused(network, call, message):
    with pytest.raises(LandscapeError, match=message):
        call(network)
