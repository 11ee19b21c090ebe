"""Permutations, signs and scalings of hidden units."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import landscape
from ntkstats.errors import LandscapeError
from ntkstats.landscape import Symmetry, Units
from ntkstats.landscape._matching import balance, images, same
from ntkstats.models import Probe, as_model


def deep(odd=True):
    """Two hidden layers of three and two units, which share the weights between them."""
    params = {
        "a": np.zeros((2, 3)), "ab": np.zeros(3), "b": np.zeros((3, 2)), "bb": np.zeros(2),
        "c": np.zeros((2, 1)),
    }  # fmt: skip
    first = landscape.hidden_units(params, [("a", 1), ("ab", 0)], [("b", 0)], odd=odd)
    second = landscape.hidden_units(params, [("b", 1), ("bb", 0)], [("c", 0)], odd=odd)
    return params, Symmetry((first, second))


def deep_loss(params):
    from ntkstats.landscape._from_model import unraveler

    unflatten = unraveler(params)
    x = np.random.default_rng(3).normal(size=(7, 2))

    def loss(theta):
        theta = jnp.asarray(theta)
        p, z = unflatten(theta), jnp.asarray(x, theta.dtype)
        h = jnp.tanh(jnp.tanh(z @ p["a"] + p["ab"]) @ p["b"] + p["bb"]) @ p["c"]
        return jnp.mean((h[:, 0] - z[:, 0] * z[:, 1]) ** 2) + 0.01 * jnp.sum(theta**2)

    return loss


def test_declared_symmetry_leaves_the_loss_unchanged():
    rng = np.random.default_rng(0)
    params, symmetry = deep()
    problem = landscape.Problem(deep_loss(params), 19, symmetry=symmetry)
    for known in (landscape.xor_network(3, 1e-2), problem):
        theta = rng.normal(size=known.dim)
        image = known.symmetry.random_element(rng, theta)
        assert np.abs(image - theta).max() > 0.1
        np.testing.assert_allclose(known.loss(image), known.loss(theta), rtol=1e-5)


def test_alignment_undoes_a_permutation_with_signs():
    rng = np.random.default_rng(1)
    single = landscape.xor_network(6, 1e-2).symmetry
    for symmetry, dim, exact in ((single, 32, True), (deep()[1], 19, False)):
        for _ in range(10):
            theta = rng.normal(size=dim)
            image = symmetry.random_element(rng, theta)
            found = landscape.align(symmetry, theta, image)
            assert found.exact is exact
            assert found.distance < 1e-12


def test_alignment_is_the_nearest_of_all_images():
    rng = np.random.default_rng(2)
    symmetry = landscape.xor_network(3, 1e-2).symmetry
    for _ in range(10):
        here, there = rng.normal(size=(2, 17))
        nearest = np.linalg.norm(images(symmetry, there) - here, axis=1).min()
        assert landscape.align(symmetry, here, there).distance == pytest.approx(nearest)


def test_orbit_sizes_agree_with_listing_all_images():
    symmetry = landscape.xor_network(3, 1e-2).symmetry
    index = symmetry.layers[0].index
    rng = np.random.default_rng(4)
    unit, other = rng.normal(size=(2, 5))
    cases = [
        (48, [unit, other, unit + other]),
        (24, [unit, unit, other]),
        (24, [unit, other, 0 * unit]),
        (12, [unit, -unit, 0 * unit]),
        (8, [unit, -unit, unit]),
        (6, [unit, 0 * unit, 0 * unit]),
        (1, [0 * unit] * 3),
    ]
    for expected, units in cases:
        theta = np.zeros(17)
        theta[index] = units
        assert landscape.orbit_size(symmetry, theta) == expected
        assert len(images(symmetry, theta)) == expected
    _, layers = deep()
    theta = rng.normal(size=19)
    assert landscape.orbit_size(layers, theta) == layers.order == 48 * 8


def test_orbits_of_wide_layers_are_exact_whole_numbers():
    symmetry = landscape.xor_network(30, 1e-2).symmetry
    theta = np.random.default_rng(5).normal(size=152)
    size = landscape.orbit_size(symmetry, theta)
    assert size == symmetry.order == 2**30 * math.factorial(30)


def test_points_that_only_look_alike_stay_two():
    symmetry = landscape.xor_network(2, 1e-2).symmetry
    rng = np.random.default_rng(6)
    theta = rng.normal(size=12)
    image = symmetry.random_element(rng, theta)
    near = image + 1e-3 * rng.normal(size=12)
    assert list(same(symmetry, theta, np.stack([image, near, theta]))) == [True, False, True]


def test_relu_units_may_be_rescaled():
    index = np.array([[0, 1, 4, 6], [2, 3, 5, 7]])
    symmetry = Symmetry((Units(index, incoming=3, homogeneous=True),))
    rng = np.random.default_rng(7)
    x = rng.normal(size=(9, 2))

    def loss(theta):
        w, b, v = theta[:4].reshape(2, 2), theta[4:6], theta[6:]
        return jnp.mean((jax.nn.relu(x @ w.T + b) @ v - x[:, 0]) ** 2)

    theta = rng.normal(size=8)
    image = symmetry.random_element(rng, theta)
    np.testing.assert_allclose(loss(image), loss(theta), rtol=1e-5)
    assert landscape.align(symmetry, theta, image).distance < 1e-12
    even = balance(symmetry, theta)[index]
    np.testing.assert_allclose(
        np.linalg.norm(even[:, :3], axis=1), np.linalg.norm(even[:, 3:], axis=1)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Units(np.zeros(3, int)), r"expected whole numbers \[units"),
        (lambda: Units(np.zeros((2, 2))), "dtype float64"),
        (lambda: Units(np.zeros((2, 2), int), homogeneous=True), "incoming and outgoing"),
        (lambda: Symmetry((Units(np.array([[0], [9]])),)).check(5), "expected 0 to 4"),
        (lambda: Symmetry((Units(np.array([[1], [1]])),)).check(5), "belongs to two units"),
        (lambda: landscape.hidden_units({"a": np.ones(3)}, [("b", 0)], []), "expected one of a"),
        (lambda: landscape.hidden_units({"a": np.ones(3)}, [("a", 1)], []), "has no axis 1"),
        (
            lambda: landscape.hidden_units(
                {"a": np.ones(3), "b": np.ones(2)}, [("a", 0)], [("b", 0)]
            ),
            "expected one number",
        ),
    ],
)
def test_bad_symmetries_are_refused(make, message):
    with pytest.raises(LandscapeError, match=message):
        make()


SUMS = {"a": jnp.zeros((2, 3)), "c": jnp.zeros((3, 1))}


def sums(activation):
    model = as_model(lambda p, x: activation(x @ p["a"]) @ p["c"])
    return model, SUMS, Probe(np.eye(2), np.ones(2)), "mse"


def units_of_sums(odd):
    return landscape.Symmetry((landscape.hidden_units(SUMS, [("a", 1)], [("c", 0)], odd=odd),))


@pytest.mark.parametrize(("activation", "odd"), [(jnp.tanh, True), (jax.nn.softplus, False)])
def test_a_symmetry_that_the_loss_has_is_accepted(activation, odd):
    landscape.problem_from_model(*sums(activation), symmetry=units_of_sums(odd))


def test_a_sign_symmetry_that_the_loss_lacks_is_refused():
    with pytest.raises(LandscapeError, match=r"changes from .* only if their activation is"):
        landscape.problem_from_model(*sums(jax.nn.softplus), symmetry=units_of_sums(odd=True))
