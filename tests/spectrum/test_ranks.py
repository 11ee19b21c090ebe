from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.errors import SpectrumError
from ntkstats.spectrum import (
    condition_number,
    eigenvalues,
    log_determinant,
    mean_diagonal,
    spectral_distribution,
    stable_rank,
    top_k,
    uniform_divergence,
)

QUANTITIES = (stable_rank, condition_number, log_determinant, uniform_divergence)


def test_stable_rank_is_trace_over_largest_eigenvalue(gram):
    K = gram(24)
    expected = float(K.trace()) / float(jnp.linalg.norm(K, 2))
    np.testing.assert_allclose(stable_rank(eigenvalues(K)), expected, rtol=1e-5)


def test_condition_number_and_log_determinant_match_dense_linear_algebra(gram):
    K = np.asarray(gram(24), np.float64)
    values = eigenvalues(K)
    np.testing.assert_allclose(condition_number(values), np.linalg.cond(K), rtol=1e-9)
    np.testing.assert_allclose(log_determinant(values), np.linalg.slogdet(K)[1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["decaying", "step", "one_dominant", "clustered"])
def test_log_determinant_is_scale_plus_flatness(name, dtype, prescribed):
    values = (7.0 * prescribed(name, 20)).astype(dtype)
    scale = 20 * np.log(values.astype(np.float64).mean())
    flatness = -20 * float(uniform_divergence(values))
    tolerance = 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(log_determinant(values), scale + flatness, atol=tolerance)


def test_uniform_divergence_is_the_divergence_of_the_distribution(prescribed):
    values = prescribed("decaying", 20)
    p = np.asarray(spectral_distribution(values))
    direct = np.mean(np.log(1 / 20 / p))
    np.testing.assert_allclose(uniform_divergence(values), direct, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-100, 100])
def test_log_determinant_shifts_with_scale_where_the_product_leaves_float32(exponent):
    values = jnp.array([4.0, 2.0, 1.0])
    shifted = log_determinant(values * 2.0**exponent)
    expected = np.log(8.0) + 3 * exponent * np.log(2.0)
    np.testing.assert_allclose(shifted, expected, rtol=1e-6)


def test_singular_spectra_have_infinite_condition_and_no_determinant():
    below_rounding = 1e-8
    for last in (0.0, below_rounding, -below_rounding):
        values = jnp.array([1.0, 0.5, last])
        assert float(condition_number(values)) == np.inf
        assert float(log_determinant(values)) == -np.inf
        assert float(uniform_divergence(values)) == np.inf


def test_float64_resolves_what_float32_calls_singular():
    values = np.array([1.0, 1e-8])
    np.testing.assert_allclose(condition_number(values), 1e8)
    assert float(condition_number(values.astype(np.float32))) == np.inf


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, -2.0], [np.nan, 1.0]])
def test_spectra_without_positive_or_with_nan_eigenvalues_give_nan(quantity, values):
    assert np.isnan(quantity(jnp.array(values)))


def test_mean_diagonal_of_kernel_diagonal_and_eigenvalues_agree(gram):
    K = gram(24)
    np.testing.assert_allclose(mean_diagonal(K), float(K.trace()) / 24, rtol=1e-6)
    np.testing.assert_allclose(mean_diagonal(jnp.diagonal(K)), mean_diagonal(K), rtol=1e-6)
    np.testing.assert_allclose(mean_diagonal(eigenvalues(K)), mean_diagonal(K), rtol=1e-5)


def test_top_k_gives_the_largest_descending_from_any_order():
    values = jnp.array([1.0, 9.0, 4.0, 7.0])
    assert top_k(values, 3).tolist() == [9.0, 7.0, 4.0]
    assert top_k(values, 4).tolist() == [9.0, 7.0, 4.0, 1.0]


@pytest.mark.parametrize("k", [0, -1, 4])
def test_top_k_outside_the_spectrum_is_refused(k):
    with pytest.raises(SpectrumError, match=f"k={k} with 3 eigenvalues"):
        top_k(jnp.ones(3), k)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_quantities_work_under_jit_and_vmap_and_keep_the_dtype(quantity):
    stack = np.random.default_rng(0).uniform(1, 9, size=(3, 5)).astype(np.float32)
    together = jax.jit(jax.vmap(quantity))(stack)
    np.testing.assert_allclose(together, [quantity(row) for row in stack], rtol=1e-5)
    assert together.dtype == np.float32
    assert quantity(stack[0].astype(np.float64)).dtype == np.float64


@pytest.mark.parametrize("door", [*QUANTITIES, lambda values: top_k(values, 1)])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.zeros((2, 2), np.float32), "one axis"),
        (np.zeros(3, np.int32), "int32"),
    ],
)
def test_what_is_not_a_spectrum_is_refused(door, values, message):
    with pytest.raises(SpectrumError, match=message):
        door(values)


@pytest.mark.parametrize("shape", [(2, 3), (0,), (2, 2, 2)])
def test_mean_diagonal_of_neither_kernel_nor_vector_is_refused(shape):
    with pytest.raises(SpectrumError, match="expected"):
        mean_diagonal(np.zeros(shape, np.float32))
