"""Solvers past their known limits: the decision as a table, agreement on what can be run here."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import lapack

from ntkstats._compat import x64
from ntkstats.errors import SpectrumError
from ntkstats.spectrum import _eigenvalues, choose_solver, eigenvalues, negative_mass
from ntkstats.spectrum._solvers import LAPACK_VECTORS_UP_TO, host_eigenvalues

SOLVERS = ("tridiagonal", "eigh", "host")


# --- the decision -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "dtype", "platform", "solver"),
    [
        (1, "float32", "cpu", "eigh"),
        (255, "float64", "cpu", "eigh"),
        (256, "float32", "cpu", "tridiagonal"),
        (32767, "float32", "cpu", "tridiagonal"),
        (46340, "float64", "cpu", "tridiagonal"),
        (46341, "float32", "cpu", "host"),
        (256, "float32", "gpu", "eigh"),
        (23170, "float32", "gpu", "eigh"),
        (23171, "float32", "gpu", "host"),
        (16383, "float64", "gpu", "eigh"),
        (16384, "float64", "gpu", "host"),
        (16384, "float32", "cuda", "eigh"),
        (23171, "float32", "cuda", "host"),
        (23171, "float32", "rocm", "host"),
        (60000, "float32", "tpu", "eigh"),
    ],
)
def test_the_choice_is_a_table(n, dtype, platform, solver):
    assert choose_solver(n, dtype, platform) == solver
    assert choose_solver(n, np.dtype(dtype), platform) == solver


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_limit_on_gpu_is_two_to_the_31_bytes(dtype):
    bytes_of = {n: n * n * np.dtype(dtype).itemsize for n in range(16000, 24000)}
    for n, size in bytes_of.items():
        assert (choose_solver(n, dtype, "cuda") == "eigh") == (size < 2**31)


@pytest.mark.parametrize("name", ["ssyevd", "dsyevd"])
def test_the_limit_of_lapack_is_where_its_workspace_wraps_around(name):
    query = getattr(lapack, f"{name}_lwork")
    n = LAPACK_VECTORS_UP_TO
    # With vectors: 1 + 6 n + 2 n^2 words, of which the next size reports a thousandth.
    assert float(query(n, compute_v=1)[0]) >= 2 * n**2
    assert float(query(n + 1, compute_v=1)[0]) < n**2
    # Without, as the host solver asks: linear at any size.
    for size in (n, n + 1, 50_000):
        assert 2 * size < float(query(size, compute_v=0)[0]) < 100 * size


@pytest.mark.parametrize(
    ("solver", "n", "dtype"),
    [
        ("eigh", 32767, "float32"),
        ("eigh", 32767, "float64"),
        ("tridiagonal", 46341, "float32"),
    ],
)
def test_a_solver_beyond_its_limit_is_refused_with_the_limit(solver, n, dtype):
    with x64(), jax.default_device(jax.devices("cpu")[0]):
        K = jax.ShapeDtypeStruct((n, n), dtype)
        with pytest.raises(SpectrumError, match=f"n={n} on cpu; expected n <= {n - 1}.*'host'"):
            jax.eval_shape(lambda K: eigenvalues(K, solver=solver), K)


def test_the_host_has_no_limit_of_its_own():
    K = jax.ShapeDtypeStruct((60_000, 60_000), "float32")
    assert jax.eval_shape(lambda K: eigenvalues(K, solver="host"), K).shape == (60_000,)


@pytest.mark.parametrize(
    ("n", "platform", "calls"),
    [
        (23168, "cuda", {"cusolver_syevd_ffi"}),
        (23173, "cuda", {"marked_host_route"}),
        (23173, "rocm", {"marked_host_route"}),
        (32769, "cpu", {"lapack_ssytrd_ffi"}),
        (46343, "cpu", {"marked_host_route"}),
    ],
)
def test_auto_compiles_the_right_route_for_a_platform_that_is_not_here(
    n, platform, calls, monkeypatch
):
    def marked(K):
        return jax.ffi.ffi_call("marked_host_route", jax.ShapeDtypeStruct(K.shape[:1], K.dtype))(K)

    # A callback itself can only be compiled where its device is.
    monkeypatch.setitem(_eigenvalues._ROUTES, "host", marked)
    _eigenvalues._solve.clear_cache()
    traced = jax.jit(eigenvalues).trace(jax.ShapeDtypeStruct((n, n), jnp.float32))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert set(re.findall(r"custom_call @(\w+)", text)) == calls
    _eigenvalues._solve.clear_cache()


def test_auto_past_the_limit_is_the_host_eagerly_and_in_a_trace(gram, monkeypatch):
    # The sizes at which this happens do not fit a test; the way there does.
    K = gram(12)
    expected = np.asarray(eigenvalues(K, solver="host"))
    seen = []

    def chosen(n, dtype, platform):
        seen.append(platform)
        return "host"

    monkeypatch.setattr(_eigenvalues, "choose_solver", chosen)
    _eigenvalues._solve.clear_cache()
    np.testing.assert_array_equal(eigenvalues(K), expected)
    np.testing.assert_array_equal(jax.jit(eigenvalues)(K), expected)
    assert {"cpu", "cuda", "rocm", "tpu"} <= set(seen)
    _eigenvalues._solve.clear_cache()


# --- agreement --------------------------------------------------------------------------------


def ill_conditioned(n: int) -> np.ndarray:
    """A kernel [n, n] whose eigenvalues fall over 18 orders of magnitude."""
    q, _ = np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))
    K = (q * np.logspace(0, -18, n)) @ q.T
    return 0.5 * (K + K.T)


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        (1, np.float32),
        (2, np.float64),
        (33, np.float32),
        (257, np.float64),
        (600, np.float32),
        (600, np.float64),
    ],
)
def test_all_solvers_agree_on_ill_conditioned_kernels(n, dtype):
    K = ill_conditioned(n).astype(dtype)
    true = np.linalg.eigvalsh(K.astype(np.float64))[::-1]
    tolerance = 4 * max(n, 8) ** 0.5 * np.finfo(dtype).eps * true[0]
    found = {solver: eigenvalues(K, solver=solver) for solver in (*SOLVERS, "auto")}
    for solver, values in found.items():
        assert values.dtype == dtype
        np.testing.assert_allclose(values, true, rtol=0, atol=tolerance, err_msg=solver)
    masses = [float(negative_mass(values)) for values in found.values()]
    assert max(masses) < n * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", SOLVERS)
def test_all_solvers_agree_under_jit_and_vmap(solver, dtype):
    kernels = np.stack([ill_conditioned(40), np.diag(np.arange(40.0))]).astype(dtype)
    expected = [eigenvalues(K, solver="host") for K in kernels]
    with x64() if dtype == np.float64 else jax.enable_x64(False):
        stacked = jnp.asarray(kernels)
        one = jax.jit(lambda K: eigenvalues(K, solver=solver))
        both = jax.jit(jax.vmap(lambda K: eigenvalues(K, solver=solver)))
        for K, values in zip(stacked, expected, strict=True):
            atol = 40 * float(np.finfo(dtype).eps) * float(values[0])
            np.testing.assert_allclose(one(K), values, rtol=0, atol=atol)
        for values, together in zip(expected, both(stacked), strict=True):
            atol = 40 * float(np.finfo(dtype).eps) * float(values[0])
            np.testing.assert_allclose(together, values, rtol=0, atol=atol)


def test_float64_reaches_the_host_whole_from_any_thread():
    """JAX runs long computations, and their callbacks, in threads outside the x64 mode."""
    K = ill_conditioned(30)
    with x64():
        given = jnp.asarray(K)
        compiled = jax.jit(lambda K: eigenvalues(K, solver="host")).lower(given).compile()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(compiled, given).result()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.logspace(0, -18, 30), rtol=0, atol=1e-14)


def test_the_host_leaves_its_input_alone_and_takes_any_leading_axes():
    K = np.random.default_rng(0).normal(size=(2, 3, 5, 5))
    before = K.copy()
    found = host_eigenvalues(K)
    np.testing.assert_array_equal(K, before)
    symmetric = 0.5 * (K + np.swapaxes(K, -1, -2))
    np.testing.assert_allclose(found, np.linalg.eigvalsh(symmetric)[..., ::-1], atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32])
def test_all_solvers_agree_on_six_thousand_samples(dtype):
    n = 6000
    rng = np.random.default_rng(0)
    J = rng.normal(size=(n, n)).astype(dtype) * np.arange(1, n + 1).astype(dtype) ** -0.6
    K = J @ J.T
    found = {solver: np.asarray(eigenvalues(K, solver=solver)) for solver in ("auto", "host")}
    tolerance = n**0.5 * np.finfo(dtype).eps * found["host"][0]
    np.testing.assert_allclose(found["auto"], found["host"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found["host"].sum(dtype=float), np.trace(K), rtol=1e-4)
    np.testing.assert_allclose((found["host"].astype(float) ** 2).sum(), (K**2).sum(), rtol=1e-4)
