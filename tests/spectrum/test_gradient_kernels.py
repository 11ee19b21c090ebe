from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.errors import SpectrumError
from ntkstats.spectrum import (
    cosine_kernel,
    covariance_entropy,
    eigenvalues,
    self_entropy,
    von_neumann_entropy,
)

# By hand: cosines of [[4, 2], [2, 9]] are 1/3, eigenvalues 4/3 and 2/3,
# S = -(2/3 ln 2/3 + 1/3 ln 1/3) = 0.6365142.
HAND_KERNEL = np.array([[4.0, 2.0], [2.0, 9.0]], np.float32)


def test_cosines_of_a_hand_computed_kernel():
    np.testing.assert_allclose(cosine_kernel(HAND_KERNEL), [[1.0, 1 / 3], [1 / 3, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(covariance_entropy(HAND_KERNEL), 0.6365142, rtol=1e-6)


def test_self_entropy_of_a_hand_computed_kernel():
    # By hand: norms 2 and 3, q = 0.4 and 0.6, S = 0.6730117.
    np.testing.assert_allclose(self_entropy(np.diagonal(HAND_KERNEL)), 0.6730117, rtol=1e-6)


def test_cosines_are_the_gram_matrix_of_normalised_gradients():
    J = np.random.default_rng(0).normal(size=(9, 20)) * np.logspace(-3, 3, 9)[:, None]
    unit = J / np.linalg.norm(J, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine_kernel(J @ J.T), unit @ unit.T, atol=1e-12)


def test_samples_without_gradient_have_zero_rows_and_add_no_entropy():
    K = np.zeros((4, 4), np.float32)
    K[1:3, 1:3] = HAND_KERNEL
    cosines = np.asarray(cosine_kernel(K))
    assert np.diagonal(cosines).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert np.isfinite(cosines).all()
    np.testing.assert_allclose(covariance_entropy(K), 0.6365142, rtol=1e-6)
    np.testing.assert_allclose(self_entropy(np.diagonal(K)), 0.6730117, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-36, 1e36])
def test_cosines_survive_scales_whose_products_leave_float32(scale):
    np.testing.assert_allclose(
        cosine_kernel(HAND_KERNEL * np.float32(scale)), cosine_kernel(HAND_KERNEL), rtol=1e-5
    )


def test_covariance_entropy_ignores_gradient_norms(gram):
    K = gram(10)
    norms = jnp.asarray(np.random.default_rng(1).uniform(0.1, 10, 10), jnp.float32)
    stretched = K * norms[:, None] * norms[None, :]
    np.testing.assert_allclose(covariance_entropy(stretched), covariance_entropy(K), rtol=1e-5)


def test_covariance_entropy_is_the_entropy_of_the_cosines(gram):
    K = gram(10, features=4)
    expected = von_neumann_entropy(eigenvalues(cosine_kernel(K), solver="eigh"))
    np.testing.assert_allclose(covariance_entropy(K, solver="eigh"), expected, rtol=1e-6)


def test_covariance_entropy_follows_the_convention():
    K = np.diag(np.r_[1.0, np.zeros(9)]).astype(np.float32)
    assert float(covariance_entropy(K)) == 0.0
    floors = 9 * 1e-14 * np.log(1e14)
    found = covariance_entropy(K, convention="znnl")
    np.testing.assert_allclose(found, floors, rtol=1e-3)


def test_a_kernel_without_gradients_has_no_entropy():
    assert np.isnan(covariance_entropy(jnp.zeros((3, 3))))
    assert np.isnan(self_entropy(jnp.zeros(3)))


def test_a_negative_diagonal_is_not_a_gram_matrix():
    assert np.isnan(self_entropy(jnp.array([1.0, -1.0])))


def test_a_kernel_that_is_not_finite_gives_nan():
    K = jnp.eye(3).at[0, 0].set(jnp.nan)
    assert np.isnan(covariance_entropy(K))
    assert np.isnan(self_entropy(jnp.diagonal(K)))


def test_gradient_kernels_work_under_vmap(gram):
    kernels = jnp.stack([gram(5, seed=s) for s in range(3)])
    together = jax.jit(jax.vmap(covariance_entropy))(kernels)
    np.testing.assert_allclose(together, [covariance_entropy(K) for K in kernels], rtol=1e-5)


def test_float64_kernels_stay_float64():
    K = HAND_KERNEL.astype(np.float64)
    assert cosine_kernel(K).dtype == np.float64
    assert covariance_entropy(K).dtype == np.float64
    assert self_entropy(np.diagonal(K)).dtype == np.float64


@pytest.mark.parametrize("door", [cosine_kernel, covariance_entropy])
@pytest.mark.parametrize(
    ("K", "message"),
    [
        (np.zeros((2, 3), np.float32), "square"),
        (np.zeros((0, 0), np.float32), "at least one row"),
        (np.eye(2, dtype=np.int8), "int8"),
    ],
)
def test_what_is_not_a_kernel_is_refused(door, K, message):
    with pytest.raises(SpectrumError, match=message):
        door(K)


def test_self_entropy_refuses_a_kernel():
    with pytest.raises(SpectrumError, match="diagonal has shape"):
        self_entropy(jnp.eye(2))
