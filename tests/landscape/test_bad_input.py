"""Losses that are no landscapes, and what is said about them."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import landscape
from ntkstats.errors import LandscapeError, LandscapeWarning

X = np.random.default_rng(0).normal(size=(12, 2))
Y = np.where(X[:, 0] + X[:, 1] > 0, 1.0, -1.0)


def search(problem, starts=32, **settings):
    scape = landscape.Landscape(problem)
    report = scape.find_minima(key=jax.random.key(0), starts=starts, batch=256, **settings)
    return scape, report


def test_a_loss_without_lower_bound_diverges_and_says_so():
    def loss(theta):
        return -jnp.sum(theta**2)

    with pytest.warns(LandscapeWarning, match="left every bounded region"):
        _, report = search(
            landscape.Problem(loss, 2, name="hill"), quench=landscape.Quench(max_step=1e7)
        )
    assert report.diverged == 32
    assert report.converged == 0


def test_flat_directions_are_counted_and_explained():
    # Without decay a redundant linear network has a valley of minima.
    def loss(theta):
        return jnp.mean((X @ theta[:2] + X @ theta[2:] - Y) ** 2)

    problem = landscape.Problem(loss, 4, name="redundant")
    with pytest.warns(LandscapeWarning, match="flat in directions that no declared zero mode"):
        scape, _ = search(problem)
    assert {point.n_zero for point in scape.points} == {2}

    def zero_modes(theta):
        return jnp.concatenate([jnp.eye(2), -jnp.eye(2)]).astype(theta.dtype)

    declared = landscape.Problem(loss, 4, zero_modes=zero_modes, name="declared")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scape, report = search(declared)
    assert report.converged == 32
    assert len(scape.points) == 1  # one minimum, up to the declared shift
    assert scape.points[0].n_zero == 2


def test_kinks_are_recognised():
    def loss(theta):
        return jnp.mean(jnp.abs(X @ theta - Y)) + 0.01 * jnp.sum(theta**2)

    settings = landscape.Quench(max_iterations=100), landscape.Follow(max_iterations=30)
    with pytest.warns(LandscapeWarning, match="the gradient of 'kinks' jumps"):
        _, report = search(
            landscape.Problem(loss, 2, name="kinks"), quench=settings[0], polish=settings[1]
        )
    assert report.converged < 10


def test_regions_that_are_not_finite_are_reported_and_avoided():
    def loss(theta):
        return jnp.sum(theta**2 - jnp.log(theta))  # NaN left of zero

    with pytest.warns(LandscapeWarning, match="not finite"):
        scape, report = search(landscape.Problem(loss, 2, name="log"))
    assert 0 < report.not_finite < 32
    assert report.converged == 32 - report.not_finite
    np.testing.assert_allclose(scape.points[0].theta, [0.5**0.5] * 2, atol=1e-9)
    assert len(scape.points) == 1


def test_a_plateau_is_a_point_without_curvature():
    def loss(theta):
        return -jnp.exp(-jnp.sum(theta**2))

    def sample(key, n):
        return 100 + jax.random.normal(key, (n, 2))

    with pytest.warns(LandscapeWarning, match="flat in directions"):
        scape, _ = search(landscape.Problem(loss, 2, sample=sample, name="plateau"))
    assert all(point.n_zero == 2 and point.index == 0 for point in scape.points)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: landscape.Problem(3.0, 2), "expected a function"),
        (lambda: landscape.Problem(lambda t: t.sum(), 0), "expected the number of parameters"),
        (lambda: landscape.Problem(lambda t: t, 2), "expected a real scalar"),
        (lambda: landscape.Problem(lambda t: (X @ t).sum(), 3), "cannot be called"),
        (lambda: landscape.Landscape(lambda t: t.sum()), "expected a Problem"),
        (lambda: landscape.lennard_jones(2), "at least 3"),
        (lambda: landscape.xor_network(0, 0.1), "at least 1"),
        (lambda: landscape.xor_network(2, -0.1), "not negative"),
        (lambda: landscape.Quench(memory=0), r"Quench\(memory=0\); expected a whole number"),
        (lambda: landscape.Quench(tol=float("nan")), "expected a positive number"),
        (lambda: landscape.Follow(max_iterations=2.5), "expected a whole number"),
        (lambda: landscape.Flow(error=-0.1), "expected a positive number"),
        (lambda: landscape.Band(images=0), "expected a whole number"),
    ],
)
def test_bad_problems_are_refused(make, message):
    with pytest.raises(LandscapeError, match=message):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.find_minima(key=jax.random.key(0), starts=0), "starts=0"),
        (lambda s: s.find_minima(key=3, starts=5), "expected one PRNG key"),
        (lambda s: s.find_saddles(key=jax.random.key(0), index=0), "from 1 to 2"),
        (lambda s: s.find_saddles(key=jax.random.key(0), index=3), "from 1 to 2"),
        (lambda s: s.hop(key=jax.random.key(0), temperature=0.0), "expected positive numbers"),
        (lambda s: s.bridge([(0, 99)]), "expected positions"),
    ],
)
def test_bad_searches_are_refused(mueller_brown, call, message):
    with pytest.raises(LandscapeError, match=message):
        call(mueller_brown)


@pytest.mark.parametrize(
    ("reference", "theta", "message"),
    [
        (np.ones(12), np.ones(3), r"theta has shape \(3,\)"),
        (np.ones(3), np.ones(3), "holds the 10 parameters"),
        (np.ones(12), np.full(12, np.nan), "not finite"),
    ],
)
def test_points_that_cannot_be_aligned_are_refused(reference, theta, message):
    symmetry = landscape.xor_network(2, 0.1).symmetry  # the last two parameters have no unit
    with pytest.raises(LandscapeError, match=message):
        landscape.align(symmetry, reference, theta)


def test_pairs_of_no_minima_are_refused():
    with pytest.raises(LandscapeError, match="call find_minima first"):
        landscape.Landscape(landscape.mueller_brown()).bridge([(0, 1)])


def test_cross_entropy_without_decay_is_explained():
    # Its loss falls towards 0 for ever: what is found are flat places, no minima.
    with pytest.warns(LandscapeWarning, match="flat in directions .* Add weight decay"):
        scape, report = search(landscape.xor_network(1, 0.0), starts=16)
    assert report.converged > 0
    assert min(point.n_zero for point in scape.points) >= 2


def test_starts_of_the_wrong_shape_are_refused():
    problem = landscape.Problem(lambda t: (t**2).sum(), 3, sample=lambda key, n: jnp.ones((n, 2)))
    with pytest.raises(LandscapeError, match="one start a row"):
        search(problem)
