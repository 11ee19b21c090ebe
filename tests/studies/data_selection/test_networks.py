"""The networks of the study against convolutions of JAX and kernels of infinite width."""

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats import as_model
from ntkstats.kernels import empirical_ntk
from studies.data_selection._networks import convolutional, dense, limit_kernels, wide

KEY = jax.random.key(0)


def test_convolutions_are_those_of_jax():
    network = convolutional(6, (3, 4), 2)
    params = network.init(KEY)
    x = jax.random.normal(KEY, (5, 6, 6, 1))
    hidden = x
    for w, b in params[:-1]:
        kernel = w.reshape(3, 3, hidden.shape[-1], -1)
        numbers = ("NHWC", "HWIO", "NHWC")
        hidden = jax.lax.conv_general_dilated(
            hidden, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )
        hidden = jax.nn.relu(hidden + b)
        hidden = (
            jax.lax.reduce_window(hidden, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        )
    w, b = params[-1]
    expected = hidden.reshape(5, -1) @ w + b
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-4, atol=1e-5)


def test_equal_settings_are_one_network():
    assert dense((3, 4, 1)) is dense((3, 4, 1))
    x = jnp.ones((2, 3))
    params = dense((3, 4, 1)).init(KEY)
    (u, c), (w, b) = params
    expected = jax.nn.relu(x @ u + c) @ w + b
    np.testing.assert_allclose(dense((3, 4, 1)).apply(params, x), expected, rtol=1e-6)


def test_wide_networks_have_the_kernels_of_the_limit():
    x = jax.random.normal(KEY, (6, 5))
    network = wide(5, 4096, 1)
    model = as_model(network.apply)
    measured = []
    for key in jax.random.split(KEY, 4):
        params, state = model.split(network.init(key))
        measured.append(empirical_ntk(model, params, state, x, outputs="trace").matrix)
    ntk, nngp = limit_kernels(x)
    error = np.abs(np.mean(measured, axis=0) - ntk) / _scale(ntk)
    assert error.max() < 0.05
    out = jax.vmap(lambda key: wide(5, 512, 1).apply(wide(5, 512, 1).init(key), x)[:, 0])(
        jax.random.split(KEY, 4000)
    )
    covariance = np.asarray(out.T @ out) / 4000
    assert (np.abs(covariance - nngp) / _scale(nngp)).max() < 0.12


def _scale(kernel):
    return np.sqrt(np.outer(kernel.diagonal(), kernel.diagonal()))
