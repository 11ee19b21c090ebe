from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkstats.errors import SpectrumError
from ntkstats.spectrum import (
    effective_entropy,
    effective_rank,
    eigenvalues,
    entropy,
    negative_mass,
    participation_ratio,
    renyi2_entropy,
    spectral_distribution,
    von_neumann_entropy,
)

EPS32 = float(np.finfo(np.float32).eps)
jit_entropy = jax.jit(von_neumann_entropy)
jit_renyi2 = jax.jit(renyi2_entropy)

spectra = st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=6).map(np.float32)


def direct_entropy(values) -> float:
    """-sum p ln p in float64, written independently."""
    values = np.asarray(values, np.float64)
    p = values[values > 0] / values[values > 0].sum()
    return float(-(p * np.log(p)).sum())


def test_entropy_of_prescribed_spectra_matches_the_formula(spectrum_name, prescribed):
    values = prescribed(spectrum_name, 40)
    found = von_neumann_entropy(jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(found, direct_entropy(values), rtol=40 * EPS32, atol=40 * EPS32)


@pytest.mark.parametrize("n", [1, 2, 37])
def test_flat_spectrum_has_maximal_entropy(n):
    values = jnp.full(n, 0.3)
    np.testing.assert_allclose(von_neumann_entropy(values), np.log(n), atol=n * EPS32)
    np.testing.assert_allclose(effective_rank(values), n, rtol=1e-5)


def test_one_mode_has_entropy_zero():
    assert float(von_neumann_entropy(jnp.array([5.0, 0.0, 0.0]))) == 0.0
    assert float(effective_rank(jnp.array([5.0, 0.0, 0.0]))) == 1.0


@given(spectra)
@settings(max_examples=50, deadline=None)
def test_entropies_are_ordered_and_bounded(values):
    S = float(jit_entropy(values))
    S2 = float(jit_renyi2(values))
    assert -1e-6 <= S2 <= S + 1e-5
    assert S / np.log(6) <= 1 + 1e-5


@given(spectra, st.integers(-90, 90))
@settings(max_examples=50, deadline=None)
def test_entropy_does_not_depend_on_scale(values, exponent):
    scaled = values * np.float32(2.0) ** exponent
    assert float(jit_entropy(scaled)) == float(jit_entropy(values))


@given(spectra, st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_entropy_does_not_depend_on_order(values, order):
    np.testing.assert_allclose(
        jit_entropy(values[np.array(order)]), jit_entropy(values), rtol=1e-5, atol=1e-6
    )


def test_eigenvalues_below_rounding_count_as_zero():
    n, lambda_max = 4, 2.0
    below = 0.9 * n * EPS32 * lambda_max
    above = 1.1 * n * EPS32 * lambda_max
    p = spectral_distribution(jnp.array([lambda_max, below, -below, -1.0]))
    assert p.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert float(spectral_distribution(jnp.array([lambda_max, above, 0.0, 0.0]))[1]) > 0


def test_probabilities_add_up_to_one_in_spite_of_negative_eigenvalues():
    p = spectral_distribution(jnp.array([3.0, 1.0, -0.5]))
    np.testing.assert_allclose(p, [0.75, 0.25, 0.0], rtol=1e-6)


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, -2.0], [np.nan, 1.0], [np.nan, np.nan]])
def test_a_spectrum_without_positive_or_with_nan_eigenvalues_gives_nan(values):
    values = jnp.array(values)
    for quantity in (von_neumann_entropy, effective_entropy, effective_rank):
        assert np.isnan(quantity(values))
    assert np.isnan(spectral_distribution(values)).all()


def test_effective_entropy_of_one_eigenvalue_is_nan():
    assert np.isnan(effective_entropy(jnp.array([2.0])))


def test_effective_entropy_is_entropy_over_log_n(prescribed):
    values = jnp.asarray(prescribed("decaying", 20), jnp.float32)
    expected = float(von_neumann_entropy(values)) / np.log(20)
    np.testing.assert_allclose(effective_entropy(values), expected, rtol=1e-6)


def test_dual_spectrum_gives_the_entropies_of_the_larger_kernel():
    J = np.random.default_rng(0).normal(size=(30, 8))
    kernel = eigenvalues(jnp.asarray(J @ J.T, jnp.float32))
    dual = eigenvalues(jnp.asarray(J.T @ J, jnp.float32))
    for quantity in (von_neumann_entropy, effective_entropy, entropy):
        np.testing.assert_allclose(quantity(dual, n=30), quantity(kernel), rtol=1e-5)
    assert float(effective_entropy(dual)) > float(effective_entropy(dual, n=30)) + 0.1


@pytest.mark.parametrize(
    ("values", "mass"),
    [([1.0, 1.0], 0.0), ([3.0, -1.0], 0.25), ([-2.0, 0.0], 1.0), ([1e-30, -1e-30], 0.5)],
)
def test_negative_mass_is_the_negative_share(values, mass):
    np.testing.assert_allclose(negative_mass(jnp.array(values)), mass, rtol=1e-6)


def test_negative_mass_of_a_zero_spectrum_is_nan():
    assert np.isnan(negative_mass(jnp.zeros(3)))


def test_negative_mass_of_a_computed_gram_matrix_is_rounding(gram):
    values = eigenvalues(gram(30, features=5))
    assert float(negative_mass(values)) < 30 * EPS32


def test_participation_ratio_from_kernel_and_from_eigenvalues_agree(gram):
    K = gram(25)
    np.testing.assert_allclose(
        participation_ratio(K), participation_ratio(eigenvalues(K)), rtol=1e-5
    )
    np.testing.assert_allclose(renyi2_entropy(K), renyi2_entropy(eigenvalues(K)), rtol=1e-5)


def test_participation_ratio_matches_the_formula(gram):
    K = np.asarray(gram(11), np.float64)
    expected = np.trace(K) ** 2 / np.trace(K @ K)
    np.testing.assert_allclose(participation_ratio(K), expected, rtol=1e-12)
    np.testing.assert_allclose(renyi2_entropy(K), np.log(expected), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_participation_ratio_survives_scales_whose_squares_leave_float32(scale, gram):
    K = gram(6)
    np.testing.assert_allclose(participation_ratio(K * scale), participation_ratio(K), rtol=1e-5)


def test_participation_ratio_of_a_zero_kernel_is_nan():
    assert np.isnan(participation_ratio(jnp.zeros((3, 3))))


def test_entropies_work_under_jit_and_vmap(gram):
    stack = jnp.stack([eigenvalues(gram(8, seed=s)) for s in range(4)])
    for quantity in (
        von_neumann_entropy,
        effective_entropy,
        effective_rank,
        negative_mass,
        participation_ratio,
        renyi2_entropy,
    ):
        together = jax.jit(jax.vmap(quantity))(stack)
        np.testing.assert_allclose(together, [quantity(row) for row in stack], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_preserved(dtype):
    values = np.array([3.0, 2.0, 1.0], dtype)
    for quantity in (von_neumann_entropy, effective_entropy, negative_mass, participation_ratio):
        assert quantity(values).dtype == dtype


def test_float64_spectrum_is_not_rounded():
    values = np.array([1.0, 1e-12])
    expected = direct_entropy(values)
    np.testing.assert_allclose(von_neumann_entropy(values), expected, rtol=1e-12)
    assert float(von_neumann_entropy(values.astype(np.float32))) == 0.0


@pytest.mark.parametrize(
    "door",
    [
        von_neumann_entropy,
        effective_entropy,
        entropy,
        effective_rank,
        negative_mass,
        spectral_distribution,
    ],
)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.zeros((2, 2), np.float32), "one axis"),
        (np.zeros((), np.float32), "one axis"),
        (np.arange(3), "dtype int64"),
    ],
)
def test_what_is_not_a_spectrum_is_refused(door, values, message):
    with pytest.raises(SpectrumError, match=message):
        door(values)


def test_a_kernel_smaller_than_its_spectrum_is_refused():
    with pytest.raises(SpectrumError, match="n=2 with 3 eigenvalues"):
        effective_entropy(jnp.ones(3), n=2)


@pytest.mark.parametrize("door", [participation_ratio, renyi2_entropy])
@pytest.mark.parametrize("shape", [(2, 3), (0,), (0, 0), (2, 2, 2), ()])
def test_neither_kernel_nor_spectrum_is_refused(door, shape):
    with pytest.raises(SpectrumError, match="expected"):
        door(np.zeros(shape, np.float32))
