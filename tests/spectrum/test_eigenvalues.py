from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats._compat import x64
from ntkstats.errors import PrecisionError, SpectrumError
from ntkstats.spectrum import eigenvalues
from ntkstats.spectrum._solvers import TRIDIAGONAL_FROM

SOLVERS = ("tridiagonal", "eigh", "host")
N = 24  # one size, so that compilations are shared
EPS32 = float(np.finfo(np.float32).eps)
EPS64 = float(np.finfo(np.float64).eps)


@pytest.mark.parametrize("n", [2, N])
@pytest.mark.parametrize("solver", SOLVERS)
def test_prescribed_spectra_are_recovered(solver, n, spectrum_name, prescribed, rotated):
    values = prescribed(spectrum_name, n)
    found = eigenvalues(jnp.asarray(rotated(values), jnp.float32), solver=solver)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, values, atol=n * EPS32 * values[0], rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_prescribed_spectra_are_recovered_in_float64(solver, spectrum_name, prescribed, rotated):
    values = prescribed(spectrum_name, N)
    found = eigenvalues(rotated(values), solver=solver)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, values, atol=N * EPS64 * values[0], rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_eigenvalues_are_descending_and_add_up_to_the_trace(solver, gram):
    K = gram(N)
    found = np.asarray(eigenvalues(K, solver=solver))
    assert (np.diff(found) <= 0).all()
    np.testing.assert_allclose(found.sum(), np.trace(K), rtol=N * EPS32)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_by_one_kernel_is_its_own_eigenvalue(solver):
    assert eigenvalues(jnp.array([[2.5]]), solver=solver).tolist() == [2.5]


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_kernel_has_zero_eigenvalues(solver):
    assert eigenvalues(jnp.zeros((N, N)), solver=solver).tolist() == [0.0] * N


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (4, 1)])
def test_one_entry_that_is_not_finite_makes_all_eigenvalues_nan(solver, bad, place):
    K = jnp.eye(N).at[place].set(bad)
    assert np.isnan(eigenvalues(K, solver=solver)).all()


def test_a_float64_kernel_that_is_not_finite_gives_nan_on_the_host():
    found = eigenvalues(jnp.eye(3).at[1, 2].set(jnp.nan), precision="float64")
    assert found.dtype == jnp.float64
    assert np.isnan(found).all()


def test_auto_is_the_tridiagonal_route_on_a_large_kernel_on_cpu(gram):
    K = gram(TRIDIAGONAL_FROM)
    with jax.default_device(jax.devices("cpu")[0]):
        found = eigenvalues(K)
        np.testing.assert_array_equal(found, eigenvalues(K, solver="tridiagonal"))
    reference = np.linalg.eigvalsh(np.asarray(K, np.float64))[::-1]
    np.testing.assert_allclose(found, reference, rtol=0, atol=100 * EPS32 * reference[0])


def test_auto_is_the_symmetric_eigensolver_on_a_small_kernel(gram):
    np.testing.assert_array_equal(eigenvalues(gram(N)), eigenvalues(gram(N), solver="eigh"))


@pytest.mark.parametrize("solver", SOLVERS)
def test_vmap_gives_each_kernel_its_own_eigenvalues(solver, gram):
    kernels = jnp.stack([gram(N, seed=0), jnp.full((N, N), jnp.nan), gram(N, seed=2)])
    together = jax.jit(jax.vmap(lambda K: eigenvalues(K, solver=solver)))(kernels)
    np.testing.assert_allclose(together[0], eigenvalues(kernels[0]), rtol=1e-4)
    assert np.isnan(together[1]).all()
    np.testing.assert_allclose(together[2], eigenvalues(kernels[2]), rtol=1e-4)


def test_scan_and_eager_agree(gram):
    kernels = jnp.stack([gram(N, seed=s) for s in range(3)])
    scanned = jax.lax.map(eigenvalues, kernels)
    np.testing.assert_allclose(scanned, [eigenvalues(K) for K in kernels], rtol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("exponent", [-100, -40, 60, 110])
def test_scaling_by_a_power_of_two_scales_eigenvalues_exactly(solver, exponent, gram):
    K = gram(N)
    factor = np.float32(2.0) ** exponent
    scaled = eigenvalues(K * factor, solver=solver)
    np.testing.assert_array_equal(scaled, eigenvalues(K, solver=solver) * factor)


def test_only_the_symmetric_part_counts(gram):
    K = gram(N)
    antisymmetric = jnp.triu(jnp.ones((N, N)), 1) - jnp.tril(jnp.ones((N, N)), -1)
    found = eigenvalues(K + 3 * antisymmetric)
    np.testing.assert_allclose(found, eigenvalues(K), atol=N * EPS32 * float(K.trace()))


def test_row_order_does_not_matter(gram):
    K = gram(N)
    order = np.random.default_rng(3).permutation(N)
    shuffled = eigenvalues(K[order][:, order])
    np.testing.assert_allclose(shuffled, eigenvalues(K), atol=N * EPS32 * float(K.trace()))


def test_float64_sees_eigenvalues_that_float32_cannot(rotated):
    values = np.array([1.0, 1e-3, 1e-9])
    K = rotated(values)
    np.testing.assert_allclose(eigenvalues(K, precision="float64"), values, rtol=1e-5)
    assert abs(float(eigenvalues(K, precision="float32")[2]) - 1e-9) > 1e-10


@pytest.mark.parametrize("solver", SOLVERS)
def test_precision_float64_widens_a_float32_kernel(solver, gram):
    K = gram(N)
    found = eigenvalues(K, solver=solver, precision="float64")
    assert found.dtype == jnp.float64
    reference = np.linalg.eigvalsh(np.asarray(K, np.float64))[::-1]
    np.testing.assert_allclose(found, reference, rtol=0, atol=N * EPS64 * reference[0])


def test_precision_float32_rounds_a_float64_kernel(rotated):
    assert eigenvalues(rotated(np.array([2.0, 1.0])), precision="float32").dtype == jnp.float32


def test_float64_inside_a_float64_trace_is_allowed(rotated):
    values = np.array([3.0, 2.0, 1e-9])
    with x64():
        traced = jax.jit(lambda K: eigenvalues(K, precision="float64"))(rotated(values))
    np.testing.assert_allclose(traced, values, atol=1e-14)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_float64_inside_a_float32_trace_is_refused(transform):
    with pytest.raises(PrecisionError, match="outside jit and vmap"):
        transform(lambda K: eigenvalues(K, precision="float64"))(jnp.ones((2, 2, 2)))


def test_gradient_of_the_trace_is_the_identity(gram):
    gradient = jax.grad(lambda K: jnp.sum(eigenvalues(K, solver="eigh")))(gram(6))
    np.testing.assert_allclose(gradient, np.eye(6), atol=1e-5)


@pytest.mark.parametrize(
    ("K", "options", "error", "message"),
    [
        (np.zeros((0, 0), np.float32), {}, SpectrumError, "at least one row"),
        (np.zeros((2, 3), np.float32), {}, SpectrumError, r"shape \(2, 3\)"),
        (np.zeros(4, np.float32), {}, SpectrumError, "square kernel"),
        (np.zeros((2, 2, 2), np.float32), {}, SpectrumError, "jax.vmap"),
        (np.eye(2, dtype=np.int32), {}, SpectrumError, "dtype int32"),
        (np.eye(2, dtype=np.complex64), {}, SpectrumError, "dtype complex64"),
        (np.eye(2, dtype=np.float16), {}, SpectrumError, "fewer bits"),
        (np.eye(2, dtype=np.float32), {"solver": "lanczos"}, SpectrumError, "lanczos"),
        (np.eye(2, dtype=np.float32), {"precision": "bf16"}, PrecisionError, "bf16"),
    ],
)
def test_bad_input_is_refused_with_a_reason(K, options, error, message):
    with pytest.raises(error, match=message):
        eigenvalues(K, **options)
