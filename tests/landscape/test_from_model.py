"""Landscapes of models, with their NTK at every point and along every pathway."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import Probe, as_model, empirical_ntk, landscape, spectrum
from ntkstats.errors import LandscapeError


def apply(params, x):
    return jnp.tanh(x @ params["w1"].T + params["b1"]) @ params["w2"].T + params["b2"]


PARAMS = {
    "b1": jnp.zeros(1), "b2": jnp.zeros(2), "w1": jnp.zeros((1, 2)), "w2": jnp.zeros((2, 1)),
}  # fmt: skip
X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([0, 1, 1, 0])


@pytest.fixture(scope="module")
def scape():
    model, data = as_model(apply), Probe(X, Y, name="xor")
    units = landscape.hidden_units(PARAMS, [("w1", 0), ("b1", 0)], [("w2", 1)], odd=True)
    problem = landscape.problem_from_model(
        model, PARAMS, data, "cross_entropy", l2=1e-2, symmetry=landscape.Symmetry((units,)),
        ntk=data, name="xor from a model",
    )  # fmt: skip
    found = landscape.Landscape(problem)
    found.find_minima(key=jax.random.key(0), starts=128)
    found.find_saddles(
        key=jax.random.key(1), starts=256, follow=landscape.Follow(max_iterations=60)
    )
    found.connect()
    return found


def test_a_model_has_the_landscape_of_the_same_loss_by_hand(scape, xor1):
    # The same network with its parameters in another order.
    mine, theirs = scape.network(), xor1.network()
    for one, other in ((mine.minima, theirs.minima), (mine.saddles, theirs.saddles)):
        np.testing.assert_allclose(one.energy, other.energy, atol=1e-12)
        np.testing.assert_allclose(one.log_det, other.log_det, atol=1e-9)
        assert list(one.orbit) == list(other.orbit)


def test_the_kernel_of_every_point_is_stored(scape):
    model, data = as_model(apply), Probe(X)
    for point in scape.points:
        b1, b2, w1, w2 = np.split(point.theta, [1, 3, 5])
        params = {"b1": b1, "b2": b2, "w1": w1.reshape(1, 2), "w2": w2.reshape(2, 1)}
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
        params, state = model.split(params)
        kernel = empirical_ntk(model, params, state, data, outputs="trace", precision="float64")
        matrix = np.asarray(kernel.matrix)
        values = spectrum.eigenvalues(matrix)
        expected = float(spectrum.von_neumann_entropy(values))
        assert point.observed["ntk_entropy"] == pytest.approx(expected, abs=1e-5)
        assert point.observed["ntk_trace"] == pytest.approx(np.trace(matrix), rel=1e-5)
    names = {"ntk_entropy", "ntk_effective_rank", "ntk_trace"}
    assert set(scape.network().minima.observed) == names


def test_the_kernel_is_stored_along_every_pathway(scape):
    network = scape.network()
    for saddle, ends in zip(network.saddles.id, network.ends, strict=True):
        for side, end in zip((-1, 1), ends, strict=True):
            stored = scape.path(saddle, side)
            entropy = stored.observed["ntk_entropy"]
            assert entropy.shape == stored.path.arc.shape
            top = scape.points[saddle].observed["ntk_entropy"]
            assert entropy[0] == pytest.approx(top, abs=1e-9)
            # The other end may be another image of the minimum; the kernel is the same.
            bottom = network.minima.observed["ntk_entropy"][end]
            assert entropy[-1] == pytest.approx(bottom, abs=1e-6)


def test_flatten_is_the_order_of_the_landscape(scape):
    params = {"b1": [1.0], "b2": [2.0, 3.0], "w1": [[4.0, 5.0]], "w2": [[6.0], [7.0]]}
    params = jax.tree.map(np.asarray, params, is_leaf=lambda leaf: isinstance(leaf, list))
    theta = landscape.flatten(params)
    np.testing.assert_array_equal(theta, np.arange(1.0, 8.0))
    logits = apply(params, X)
    picked = np.asarray(jax.nn.log_softmax(logits))[np.arange(4), Y]
    expected = -picked.mean() + 1e-2 * (theta**2).sum()
    problem = scape.problem
    assert float(problem.value(theta, problem.data)) == pytest.approx(expected, rel=1e-5)


def test_decays_share_their_compiled_programs():
    # The decay is an argument of the loss: a scan over decays compiles once, given a cache.
    texts = set()
    for l2 in (1e-2, 1e-3):
        problem = landscape.problem_from_model(
            as_model(apply), PARAMS, Probe(X, Y), "cross_entropy", l2=l2
        )
        data = problem.data_as(np.float32)
        texts.add(jax.jit(problem.value).lower(np.zeros(7, np.float32), data).as_text())
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("data", "l2", "message"),
    [
        (Probe(X), 0.1, "has no targets"),
        (Probe(X, Y), -1.0, "not negative"),
        (Probe(X[:, :1], Y), 0.1, r"cannot take data .* of shape \(4, 1\)"),
    ],
)
def test_bad_models_are_refused(data, l2, message):
    with pytest.raises(LandscapeError, match=message):
        landscape.problem_from_model(as_model(apply), PARAMS, data, "cross_entropy", l2=l2)
