"""Infinite-width kernels, and the empirical kernels of neural-tangents on current JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats._compat import import_neural_tangents
from ntkstats.errors import KernelError
from ntkstats.kernels import empirical_ntk
from ntkstats.kernels._infinite import infinite_ntk
from ntkstats.models import Probe, as_model

nt = import_neural_tangents()
from neural_tangents import stax  # noqa: E402

WIDTH, OUTPUTS = 16, 2
NETWORK = stax.serial(stax.Dense(WIDTH, b_std=0.1), stax.Relu(), stax.Dense(OUTPUTS))
JITTED = jax.jit(NETWORK[2], static_argnames="get")
CONVOLUTIONAL = stax.serial(
    stax.Conv(4, (3, 3), padding="SAME"), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(OUTPUTS)
)


def inputs(n: int, *shape: int) -> np.ndarray:
    """Reproducible numbers that do not depend on a random generator."""
    size = n * int(np.prod(shape))
    return np.sin(1.0 + 0.7 * np.arange(size) ** 1.1).reshape(n, *shape).astype(np.float32)


def frozen_params() -> list:
    """Parameters of `NETWORK` by formula, so that frozen values stay valid."""

    def numbers(*shape):
        values = np.cos(0.3 + 0.37 * np.arange(np.prod(shape)) ** 2)
        return jnp.asarray(values.reshape(shape), jnp.float32)

    return [(numbers(4, WIDTH), numbers(1, WIDTH)), (), (numbers(WIDTH, OUTPUTS), None)]


def naive_ntk(apply_fn, params, x1, x2) -> np.ndarray:
    """Full kernel [n, m, C, C] from dense Jacobians."""

    def jacobian(x):
        leaves = jax.tree.leaves(jax.jacrev(lambda p: apply_fn(p, x))(params))
        return jnp.concatenate([leaf.reshape(len(x), OUTPUTS, -1) for leaf in leaves], axis=-1)

    return np.einsum("icp,jdp->ijcd", jacobian(x1), jacobian(x2))


# --- the limit --------------------------------------------------------------------------------

X = inputs(5, 4)
Y = inputs(3, 4)[::-1] * 0.5


def relu_limit(x1, x2) -> tuple[np.ndarray, np.ndarray]:
    """NNGP and NTK of `NETWORK` by the arc-cosine formulas of Cho and Saul 2009, in float64."""
    x1, x2 = np.float64(x1), np.float64(x2)
    cov = x1 @ x2.T / 4 + 0.1**2
    d1, d2 = ((x**2).sum(1) / 4 + 0.1**2 for x in (x1, x2))
    norms = np.sqrt(np.outer(d1, d2))
    theta = np.arccos(np.clip(cov / norms, -1, 1))
    nngp = norms * (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)
    slopes = (np.pi - theta) / (2 * np.pi)
    return nngp, nngp + cov * slopes


@pytest.mark.parametrize(("get", "which"), [("nngp", 0), ("ntk", 1)])
def test_the_limit_of_a_relu_network_matches_the_arc_cosine_formula(get, which):
    cross = infinite_ntk(NETWORK, X, Y, get=get)
    np.testing.assert_allclose(cross, relu_limit(X, Y)[which], rtol=2e-5, atol=1e-6)
    square = infinite_ntk(NETWORK, X, get=get)
    np.testing.assert_allclose(square, relu_limit(X, X)[which], rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize(("other", "batch"), [(None, 2), (None, 4), (None, 99), (Y, 2)])
def test_tiles_of_any_size_give_the_same_kernel(other, batch):
    tiled = infinite_ntk(JITTED, X, other, batch=batch)
    # float32 arc cosines near 1 leave the diagonal with an error of about 1e-4.
    whole = infinite_ntk(JITTED, X, other)
    np.testing.assert_allclose(tiled, whole, rtol=2e-4, atol=1e-6)


def test_the_tiled_kernel_is_exactly_symmetric():
    K = np.asarray(infinite_ntk(JITTED, X, batch=2))
    np.testing.assert_array_equal(K, K.T)


def test_triple_kernel_function_and_jitted_function_agree():
    whole = infinite_ntk(NETWORK, X, Y)
    assert (infinite_ntk(NETWORK[2], X, Y) == whole).all()
    np.testing.assert_allclose(infinite_ntk(JITTED, X, Y), whole, rtol=1e-5, atol=1e-6)


def test_weights_of_a_probe_scale_the_entries_as_in_the_empirical_kernel():
    weight = np.array([1.0, 4.0, 9.0, 0.0, 1.0], np.float32)
    found = infinite_ntk(NETWORK, Probe(X, weight=weight))
    root = np.sqrt(weight)
    np.testing.assert_allclose(found, infinite_ntk(NETWORK, X) * np.outer(root, root), rtol=1e-6)
    cross = infinite_ntk(NETWORK, Probe(X, weight=weight), Probe(Y))
    np.testing.assert_allclose(cross, infinite_ntk(NETWORK, X, Y) * root[:, None], rtol=1e-6)


def test_convolutional_limits_are_tiled_too():
    images = inputs(2, 3, 3, 1)
    kernel_fn = jax.jit(CONVOLUTIONAL[2], static_argnames="get")
    whole = infinite_ntk(kernel_fn, images)
    assert whole.shape == (2, 2)
    np.testing.assert_allclose(infinite_ntk(kernel_fn, images, batch=1), whole, rtol=1e-5)


def test_the_empirical_kernel_approaches_the_limit_like_one_over_root_width():
    widths, seeds = (32, 512), 16
    errors = []
    for width in widths:
        init, apply, kernel_fn = stax.serial(stax.Dense(width), stax.Relu(), stax.Dense(OUTPUTS))
        limit = infinite_ntk(kernel_fn, X)

        def error(key, init=init, apply=apply, limit=limit):
            params = init(key, (-1, 4))[1]
            jacobian = jax.jacrev(lambda p: apply(p, X))(params)
            rows = [leaf.reshape(len(X), OUTPUTS, -1) for leaf in jax.tree.leaves(jacobian)]
            # Averaged over outputs, as the limit is per output.
            K = sum(jnp.einsum("icp,jcp->ij", row, row) for row in rows) / OUTPUTS
            return jnp.linalg.norm(K - limit) / jnp.linalg.norm(limit)

        keys = jax.random.split(jax.random.PRNGKey(0), seeds)
        errors.append(float(jnp.sqrt(jnp.mean(jax.jit(jax.vmap(error))(keys) ** 2))))
    # One over root width predicts sqrt(32 / 512) = 0.25.
    assert 0.15 < errors[1] / errors[0] < 0.40
    assert errors[1] < 0.12


# --- neural-tangents' own empirical kernels on current JAX --------------------------------------


@pytest.mark.parametrize("implementation", [1, 2])
def test_empirical_trace_kernels_average_over_outputs(implementation):
    params = frozen_params()
    ntk_fn = nt.empirical_ntk_fn(NETWORK[1], vmap_axes=0, implementation=implementation)
    full = naive_ntk(NETWORK[1], params, X, Y)
    expected = np.einsum("ijcc->ij", full) / OUTPUTS
    np.testing.assert_allclose(ntk_fn(X, Y, params), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", [1, 2])
def test_full_empirical_kernels_match_dense_jacobians(implementation):
    params = frozen_params()
    ntk_fn = nt.empirical_ntk_fn(
        NETWORK[1], trace_axes=(), vmap_axes=0, implementation=implementation
    )
    expected = naive_ntk(NETWORK[1], params, X, X)
    np.testing.assert_allclose(ntk_fn(X, None, params), expected, rtol=1e-5, atol=1e-5)


def test_our_kernel_averaged_over_outputs_has_the_normalisation_of_the_limit():
    model, params = as_model(NETWORK), frozen_params()
    split, state = model.split(params)
    ours = empirical_ntk(model, split, state, X, outputs="trace", average_outputs=True)
    theirs = nt.empirical_ntk_fn(NETWORK[1], vmap_axes=0)(X, None, params)
    np.testing.assert_allclose(ours.matrix, theirs, rtol=1e-5, atol=1e-6)


# --- frozen values of neural-tangents 0.6.5 -----------------------------------------------------
# Made where the package works unaided (CPU, Python 3.11), by printing the same expressions:
#   pip install jax==0.4.25 jaxlib==0.4.25 "numpy<2" "scipy<1.13" frozendict
#   pip install --no-deps neural-tangents==0.6.5
# with an empty module in sys.modules["neural_tangents.experimental"], which needs TensorFlow.
# There implementation 3 (structured derivatives) gave the same empirical kernel to 1e-7.

FROZEN_NTK = [
    [0.16378285, -0.01808522, 0.26550767],
    [-0.01983068, 0.26350760, -0.01807781],
    [0.30334598, -0.01988608, 0.16383210],
    [-0.01896233, 0.10169169, 0.04732305],
    [0.03047309, 0.13472418, -0.01550550],
]
FROZEN_NNGP = [
    [0.10021098, 0.00241619, 0.13562961],
    [0.00456652, 0.13461842, 0.00241151],
    [0.15475214, 0.00467029, 0.10033449],
    [0.00652579, 0.07092438, 0.04530928],
    [0.03505690, 0.08176590, 0.00497174],
]
FROZEN_CNN = [
    [0.09826790, 0.06159469],
    [0.06159469, 0.06340489],
]
FROZEN_EMPIRICAL_NTK = [
    [0.14917707, -0.01397500, 0.26847362],
    [-0.00854035, 0.08024168, -0.02556423],
    [0.22647950, -0.00717575, 0.15842554],
    [-0.00705139, 0.03979995, 0.05155941],
    [0.02356690, 0.02757161, -0.01853044],
]
FROZEN_EMPIRICAL_NNGP = [
    [0.00798424, 0.01007939, 0.00895475],
    [0.03376947, 0.02774702, 0.01147452],
    [0.04015741, 0.02825272, 0.00523233],
    [0.03526815, 0.03201352, 0.01736713],
    [0.01902023, 0.01853446, 0.01161781],
]


def test_infinite_kernels_equal_the_frozen_ones():
    np.testing.assert_allclose(infinite_ntk(NETWORK, X, Y), FROZEN_NTK, rtol=1e-5, atol=1e-6)
    nngp = infinite_ntk(NETWORK, X, Y, get="nngp")
    np.testing.assert_allclose(nngp, FROZEN_NNGP, rtol=1e-5, atol=1e-6)
    kernel_fn = jax.jit(CONVOLUTIONAL[2], static_argnames="get")
    images = infinite_ntk(kernel_fn, inputs(2, 3, 3, 1))
    np.testing.assert_allclose(images, FROZEN_CNN, rtol=2e-4)


@pytest.mark.parametrize("implementation", [1, 2])
def test_empirical_kernels_equal_the_frozen_ones(implementation):
    ntk_fn = nt.empirical_ntk_fn(NETWORK[1], vmap_axes=0, implementation=implementation)
    found = ntk_fn(X, Y, frozen_params())
    np.testing.assert_allclose(found, FROZEN_EMPIRICAL_NTK, rtol=1e-5, atol=1e-6)


def test_empirical_nngp_kernels_equal_the_frozen_ones():
    found = nt.empirical_nngp_fn(NETWORK[1])(X, Y, frozen_params())
    np.testing.assert_allclose(found, FROZEN_EMPIRICAL_NNGP, rtol=1e-5, atol=1e-6)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel_fn", "x1", "options", "message"),
    [
        (None, X, {}, "kernel_fn is a NoneType"),
        (NETWORK[:2], X, {}, "kernel_fn is a tuple"),
        (NETWORK, X, {"get": "cov1"}, "get='cov1'"),
        (NETWORK, X, {"batch": 0}, "batch=0"),
        (NETWORK, X[:0], {}, "no samples"),
        (NETWORK, {"a": X, "b": Y}, {}, "leading sample axis"),
        (NETWORK, np.float32(1.0), {}, "leading sample axis"),
        (stax.Conv(4, (1, 1)), inputs(2, 3, 3, 1), {}, "Flatten"),
    ],
)
def test_what_has_no_limit_is_refused_with_a_reason(kernel_fn, x1, options, message):
    with pytest.raises(KernelError, match=message):
        infinite_ntk(kernel_fn, x1, **options)
