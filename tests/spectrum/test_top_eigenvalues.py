"""The largest eigenvalues from products: right, bounded, and honest when not converged."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from ntkstats import as_model
from ntkstats.errors import SpectrumError
from ntkstats.kernels import empirical_ntk, ntk_operator
from ntkstats.spectrum import TopEigenvalues, eigenvalues, top_eigenvalues

N, K_TOP = 300, 12
KEY = jax.random.key(3)
INDEX = np.arange(1, N + 1.0)
SPECTRA = {
    "slow": INDEX**-0.7,
    "fast": INDEX**-1.2,
    "exponential": np.exp(-INDEX / 30),
    "dominated": np.r_[1.0, np.full(N - 1, 1e-4)],
    "ten classes": np.r_[np.full(10, 1.0), np.full(10, 0.5), np.full(N - 20, 1e-3)],
    "low rank": np.r_[np.arange(4.0, 0, -1), np.zeros(N - 4)],
    "clustered": 1 + 1e-6 * INDEX[::-1],
    "indefinite": np.r_[0.5, 0.2, np.zeros(N - 3), -1.0],
}


def off_the_spectrum(values: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Distance of each value to the nearest eigenvalue."""
    return np.abs(np.asarray(values, float)[:, None] - spectrum[None, :]).min(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SPECTRA)
def test_an_eigenvalue_lies_within_each_bound(name, dtype, rotated):
    K = rotated(SPECTRA[name]).astype(dtype)
    true = np.linalg.eigvalsh(K.astype(np.float64))
    found = top_eigenvalues(K, K_TOP, key=KEY, block=10)
    assert found.values.dtype == dtype
    values, residuals = np.asarray(found.values, float), np.asarray(found.residuals, float)
    assert (off_the_spectrum(values, true) <= residuals).all()
    assert (np.diff(values) <= 0).all()
    # Never above the eigenvalue of the same rank, up to rounding.
    slack = 20 * np.finfo(dtype).eps * np.abs(true).max()
    assert (values <= true[::-1][:K_TOP] + slack).all()


@pytest.mark.parametrize("name", ["slow", "fast", "exponential", "dominated", "ten classes"])
def test_the_largest_are_found_to_rounding_each_as_often_as_it_is_there(name, rotated):
    K = rotated(SPECTRA[name])
    found = top_eigenvalues(K, K_TOP, key=KEY, block=10)
    true = np.sort(SPECTRA[name])[::-1][:K_TOP]
    np.testing.assert_allclose(found.values, true, rtol=1e-9)
    assert (np.asarray(found.residuals) < 1e-4 * true[0]).all()


def test_what_has_not_converged_shows_in_its_residual(rotated):
    K = rotated(SPECTRA["slow"])
    shallow = top_eigenvalues(K, K_TOP, key=KEY, block=10, depth=2)
    values, residuals = np.asarray(shallow.values), np.asarray(shallow.residuals)
    assert np.abs(values - SPECTRA["slow"][:K_TOP]).max() > 1e-2
    assert (residuals > 1e-2).all()
    assert (off_the_spectrum(values, SPECTRA["slow"]) <= residuals).all()
    deep = top_eigenvalues(K, K_TOP, key=KEY, block=10, depth=12)
    assert (np.asarray(deep.residuals) < 1e-3 * residuals).all()


def test_a_basis_larger_than_the_kernel_is_a_full_solve(gram):
    K = gram(20)
    found = top_eigenvalues(K, 20, key=KEY)
    np.testing.assert_allclose(found.values, eigenvalues(K), rtol=1e-4)
    assert (found.method, found.cost) == ("full space", 20)
    assert (found.residuals < 1e-5 * found.values[0]).all()


def test_method_cost_and_seed_are_reported(gram):
    found = top_eigenvalues(gram(80), 3, key=jax.random.key(7), block=4, depth=5)
    assert isinstance(found, TopEigenvalues)
    assert found.method == "block Krylov space of 5 x 4 vectors"
    assert (found.cost, found.seed) == (20, 7)
    split = jax.random.split(jax.random.key(7))[0]
    assert top_eigenvalues(gram(80), 3, key=split, block=4, depth=5).seed is None


def test_one_key_gives_one_answer_and_legacy_keys_work(gram):
    K = gram(80)
    options = {"block": 4, "depth": 5}
    first = top_eigenvalues(K, 3, key=jax.random.key(7), **options)
    legacy = top_eigenvalues(K, 3, key=jax.random.PRNGKey(7), **options)
    np.testing.assert_array_equal(first.values, legacy.values)
    assert legacy.seed == 7
    other = top_eigenvalues(K, 3, key=jax.random.key(8), **options)
    assert (first.residuals != other.residuals).any()


def test_jit_and_vmap_give_each_kernel_its_own(gram):
    def both(K):
        found = top_eigenvalues(K, 3, key=KEY, block=4, depth=5)
        return found.values, found.residuals

    kernels = jnp.stack([gram(80, seed=0), gram(80, seed=1)])
    together = jax.jit(jax.vmap(both))(kernels)
    for i, K in enumerate(kernels):
        np.testing.assert_allclose(together[0][i], both(K)[0], rtol=1e-5)
        assert (together[1][i] < 2 * both(K)[1] + 1e-5 * together[0][i, 0]).all()


@pytest.mark.parametrize("exponent", [-100, 60, 110])
def test_a_power_of_two_comes_out_exactly(exponent, gram):
    K, factor = gram(80), np.float32(2.0) ** exponent
    plain = top_eigenvalues(K, 3, key=KEY, block=4, depth=5)
    scaled = top_eigenvalues(K * factor, 3, key=KEY, block=4, depth=5)
    np.testing.assert_array_equal(scaled.values, plain.values * factor)
    np.testing.assert_array_equal(scaled.residuals, plain.residuals * factor)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite_gives_nan(bad, gram):
    found = top_eigenvalues(gram(80).at[3, 5].set(bad), 3, key=KEY, block=4, depth=5)
    assert np.isnan(found.values).all()
    assert np.isnan(found.residuals).all()


def test_a_zero_kernel_has_zero_eigenvalues():
    found = top_eigenvalues(jnp.zeros((80, 80)), 3, key=KEY, block=4, depth=5)
    assert found.values.tolist() == [0, 0, 0]


# --- operators --------------------------------------------------------------------------------


def test_the_operator_of_a_network_gives_what_its_matrix_gives():
    def network(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    first, second, third = jax.random.split(jax.random.key(0), 3)
    params = {"a": jax.random.normal(first, (5, 8)), "b": jax.random.normal(second, (8, 3))}
    x = jax.random.normal(third, (40, 5))
    model = as_model(network)
    params, state = model.split(params)
    operator = ntk_operator(model, params, state, x, outputs="full")
    found = top_eigenvalues(operator, 4, key=KEY, block=6, depth=6)
    K = empirical_ntk(model, params, state, x, outputs="full").matrix
    true = np.linalg.eigvalsh(np.asarray(K, float))
    assert (off_the_spectrum(found.values, true) <= found.residuals).all()
    np.testing.assert_allclose(found.values, true[::-1][:4], rtol=1e-3)
    assert found.cost == 36


def test_operators_of_other_libraries_are_multiplied_in_their_precision(rotated):
    K = rotated(SPECTRA["fast"])
    stored = top_eigenvalues(K, 3, key=KEY, block=4, depth=5)
    found = top_eigenvalues(aslinearoperator(K), 3, key=KEY, block=4, depth=5)
    assert found.values.dtype == np.float64
    np.testing.assert_allclose(found.values, stored.values, rtol=1e-13)


def test_one_product_at_a_time_will_do(rotated):
    class OneByOne:
        shape, dtype = (N, N), np.dtype(np.float64)
        count = 0

        def __init__(self, K):
            self.K = K

        def matvec(self, v):
            assert v.shape == (N,)
            self.count += 1
            return self.K @ np.asarray(v)

    operator = OneByOne(rotated(SPECTRA["fast"]))
    found = top_eigenvalues(operator, 3, key=KEY, block=4, depth=5)
    assert operator.count == found.cost == 20
    np.testing.assert_allclose(found.values[0], 1, rtol=1e-5)


# --- bad input --------------------------------------------------------------------------------

SQUARE = np.eye(12, dtype=np.float32)


@pytest.mark.parametrize(
    ("K", "k", "options", "message"),
    [
        (SQUARE, 0, {}, "k=0; expected a whole number, at least 1"),
        (SQUARE, -2, {}, "k=-2"),
        (SQUARE, True, {}, "k=True"),
        (SQUARE, 13, {}, "k=13 with a kernel of size 12; expected 1 <= k <= 12"),
        (SQUARE, 2, {"key": None}, r"key is None; expected one PRNG key.*jax\.random\.key\(seed\)"),
        (SQUARE, 2, {"key": jax.random.split(KEY, 2)}, r"array of shape \(2,\)"),
        (SQUARE, 2, {"block": 0}, "block=0"),
        (SQUARE, 2, {"depth": 0}, "depth=0"),
        (SQUARE, 5, {"block": 2, "depth": 2}, "space of 4 dimensions"),
        (SQUARE[:5], 2, {}, r"shape \(5, 12\); expected a square"),
        (SQUARE[0], 2, {}, "square kernel"),
        (SQUARE[:0, :0], 1, {}, "at least one row"),
        (SQUARE.astype(np.int32), 2, {}, "dtype int32"),
        (SQUARE.astype(np.float16), 2, {}, "dtype float16"),
        (aslinearoperator(SQUARE[:5]), 2, {}, r"shape \(5, 12\); expected a square"),
        (
            LinearOperator((3, 3), matvec=lambda v: v, dtype=np.int64),
            2,
            {},
            "dtype int64; expected float32 or float64",
        ),
        ([[1.0]], 1, {}, "K is a list; expected a kernel"),
        (np.linalg, 1, {}, "K is a module"),
    ],
)
def test_bad_input_is_refused_with_a_reason(K, k, options, message):
    with pytest.raises(SpectrumError, match=message):
        top_eigenvalues(K, k, **{"key": KEY, **options})
