"""Entropy from products: unbiased, with an error bar that means what it says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from ntkstats import as_model
from ntkstats.errors import SpectrumError
from ntkstats.kernels import empirical_ntk, ntk_operator, ntk_trace
from ntkstats.spectrum import eigenvalues, entropy_estimate, von_neumann_entropy
from ntkstats.spectrum._entropy_estimate import _integrate
from ntkstats.spectrum._krylov import Basis
from ntkstats.typing import Estimate

N = 400
SMALL = {"block": 12, "depth": 5, "probes": 8, "steps": 10}
KEY = jax.random.key(5)


def tail_of(share: float, n: int) -> np.ndarray:
    """One eigenvalue that holds most of the trace, as trained networks have it."""
    tail = np.arange(1.0, n) ** -1.2
    return np.r_[1 - share, share * tail / tail.sum()]


SPECTRA = {
    "i^-1.2": lambda n: np.arange(1, n + 1.0) ** -1.2,
    "i^-0.7": lambda n: np.arange(1, n + 1.0) ** -0.7,
    "dominated": lambda n: tail_of(0.05, n),
    "exponential": lambda n: np.exp(-np.arange(1, n + 1.0) / 30),
}


def true_entropy(values: np.ndarray) -> float:
    p = values[values > 0] / values.sum()
    return float(-(p * np.log(p)).sum())


def over_seeds(K, count: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """Values and standard errors [count] for keys 0, 1, ..."""
    found = [entropy_estimate(K, key=jax.random.key(seed), **options) for seed in range(count)]
    values, stderrs = ([float(getattr(one, part)) for one in found] for part in ("value", "stderr"))
    return np.array(values), np.array(stderrs)


@pytest.fixture(scope="module")
def estimates():
    """``{spectrum: (values, stderrs)}`` over 30 keys, float32."""
    from tests.spectrum.conftest import matrix_with_spectrum

    found = {}
    for name, spectrum in SPECTRA.items():
        K = jnp.asarray(matrix_with_spectrum(spectrum(N)), jnp.float32)
        found[name] = over_seeds(K, 30, **SMALL)
    return found


@pytest.mark.parametrize("name", SPECTRA)
def test_the_estimate_is_unbiased_within_its_bracket(name, estimates):
    values, stderrs = estimates[name]
    off = values - true_entropy(SPECTRA[name](N))
    assert abs(off.mean()) < 3 * off.std(ddof=1) / len(off) ** 0.5 + 0.2 * stderrs.mean()


@pytest.mark.parametrize("name", SPECTRA)
def test_the_standard_error_matches_the_spread(name, estimates):
    values, stderrs = estimates[name]
    off = np.abs(values - true_entropy(SPECTRA[name](N)))
    typical = (stderrs**2).mean() ** 0.5
    assert (off**2).mean() ** 0.5 < 1.3 * typical  # not too small
    assert typical < 3 * (off**2).mean() ** 0.5  # nor so large that it says nothing
    assert (off < 2 * stderrs).mean() > 0.8
    assert typical < 0.02


def test_float64_is_kept(rotated):
    values = SPECTRA["dominated"](N)
    wide = entropy_estimate(rotated(values), key=KEY, **SMALL)
    assert wide.value.dtype == np.float64
    assert abs(float(wide.value) - true_entropy(values)) < 3 * float(wide.stderr)


def test_rayleigh_ritz_brackets_the_entropy(rotated):
    # The two quadratures, on a basis that resolves little and probes that span everything.
    K = rotated(SPECTRA["i^-1.2"](60))
    K /= np.trace(K)
    with jax.enable_x64(True):
        start = np.random.default_rng(0).normal(size=(60, 10))
        V, _ = np.linalg.qr(np.hstack([start, K @ start]))
        basis = Basis(jnp.asarray(V), jnp.asarray(K @ V))
        nothing = jnp.zeros((60, 2))
        middle, half = (float(x) for x in _integrate(basis, nothing, 1.0, 10))
    values, vectors = np.linalg.eigh(K)
    f = (vectors * -(values * np.log(values))) @ vectors.T
    inside = np.trace(V[:, :10].T @ f @ V[:, :10])
    assert 1e-4 < half < 0.1
    assert middle - half < inside < middle + half


def test_a_seed_a_method_and_a_cost_are_reported(gram):
    found = entropy_estimate(gram(N), key=jax.random.key(9), **SMALL)
    assert isinstance(found, Estimate)
    assert (found.cost, found.seed) == (12 * 5 + 8 * 10, 9)
    assert found.method.startswith("block Krylov space of 60 dimensions, 8 probes x 10 steps")


def test_a_kernel_smaller_than_the_spaces_is_solved_exactly(gram):
    K = gram(50)
    for kernel, trace in ((K, None), (aslinearoperator(np.asarray(K)), float(jnp.trace(K)))):
        found = entropy_estimate(kernel, key=KEY, trace=trace)
        np.testing.assert_allclose(found.value, von_neumann_entropy(eigenvalues(K)), rtol=1e-5)
        assert (float(found.stderr), found.method, found.cost) == (0, "exact", 50)


@pytest.mark.parametrize("rank", [1, 5, 30])
def test_a_kernel_of_low_rank_is_exact(rank, rotated):
    values = np.r_[np.linspace(2, 1, rank), np.zeros(N - rank)]
    K = jnp.asarray(rotated(values), jnp.float32)
    found = entropy_estimate(K, key=KEY, **SMALL)
    np.testing.assert_allclose(found.value, true_entropy(values), atol=2e-4)
    assert float(found.stderr) < 2e-4


def test_a_flat_spectrum_is_exact():
    found = entropy_estimate(3 * jnp.eye(N), key=KEY, **SMALL)
    np.testing.assert_allclose(found.value, np.log(N), rtol=1e-5)
    assert float(found.stderr) < 1e-4


@pytest.mark.parametrize("exponent", [-100, 60, 110])
def test_scale_does_not_matter(exponent, gram):
    K = gram(N)
    plain = entropy_estimate(K, key=KEY, **SMALL)
    scaled = entropy_estimate(K * np.float32(2.0) ** exponent, key=KEY, **SMALL)
    assert (scaled.value, scaled.stderr) == (plain.value, plain.stderr)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_kernel_without_positive_finite_trace_gives_nan(bad):
    found = entropy_estimate(bad * jnp.eye(N), key=KEY, **SMALL)
    assert np.isnan(found.value)
    assert np.isnan(found.stderr)


def test_vmap_gives_each_kernel_its_own(rotated):
    kernels = jnp.stack(
        [jnp.asarray(rotated(SPECTRA[name](N)), jnp.float32) for name in ("i^-1.2", "exponential")]
    )
    together = jax.vmap(lambda K: entropy_estimate(K, key=KEY, **SMALL).value)(kernels)
    alone = [entropy_estimate(K, key=KEY, **SMALL).value for K in kernels]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_an_operator_with_its_trace_gives_the_entropy_of_its_matrix():
    def network(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    first, second, third = jax.random.split(jax.random.key(0), 3)
    params = {"a": jax.random.normal(first, (5, 16)), "b": jax.random.normal(second, (16, 3))}
    x = jax.random.normal(third, (60, 5))
    model = as_model(network)
    params, state = model.split(params)
    operator = ntk_operator(model, params, state, x)
    trace = ntk_trace(model, params, state, x)
    assert trace.method == "exact"
    few = {"block": 8, "depth": 4, "probes": 6, "steps": 4}
    found = entropy_estimate(operator, key=KEY, trace=trace.value, **few)
    K = empirical_ntk(model, params, state, x, outputs="full").matrix
    exact = float(von_neumann_entropy(eigenvalues(K)))
    assert found.cost == 56
    assert abs(float(found.value) - exact) < 4 * float(found.stderr)
    assert float(found.stderr) < 0.1 * exact


SQUARE = np.eye(12, dtype=np.float32)


@pytest.mark.parametrize(
    ("K", "options", "message"),
    [
        (SQUARE, {"key": None}, r"key is None.*jax\.random\.key\(seed\)"),
        (SQUARE, {"probes": 1}, "probes=1; expected at least 2"),
        (SQUARE, {"probes": 0}, "probes=0"),
        (SQUARE, {"steps": 0}, "steps=0"),
        (SQUARE, {"block": -1}, "block=-1"),
        (SQUARE, {"depth": 0}, "depth=0"),
        (SQUARE[:5], {}, "square kernel"),
        (SQUARE.astype(np.int32), {}, "dtype int32"),
        (aslinearoperator(SQUARE), {}, r"trace is None.*ntk_trace"),
        ("K", {}, "K is a str"),
    ],
)
def test_bad_input_is_refused_with_a_reason(K, options, message):
    with pytest.raises(SpectrumError, match=message):
        entropy_estimate(K, **{"key": KEY, **options})


# --- calibration ------------------------------------------------------------------------------

SEEDS = 100


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECTRA)
def test_calibration_at_size(name, rotated):
    """The table in the docstring of `entropy_estimate`; shown by ``pytest -s -m slow -k size``."""
    n = 1500
    values = SPECTRA[name](n)
    K = jnp.asarray(rotated(values), jnp.float32)

    found, stderrs = over_seeds(K, SEEDS)
    off = found - true_entropy(values)
    rms, typical = (off**2).mean() ** 0.5, (stderrs**2).mean() ** 0.5
    clipped = float(von_neumann_entropy(eigenvalues(K))) - true_entropy(values)
    one_in, two_in = (float((abs(off) < s * stderrs).mean()) for s in (1, 2))
    print(
        f"\n{name}: S = {true_entropy(values):.3f}, bias {off.mean():.1e}, rms {rms:.1e},"
        f" stderr {typical:.1e}, within 1 / 2 stderr: {one_in:.0%} / {two_in:.0%};"
        f" full float32 solve off by {clipped:.1e}"
    )
    assert abs(off.mean()) < 3 * rms / SEEDS**0.5 + 0.2 * typical
    assert rms < 0.005
    assert 0.7 < typical / rms < 2
    assert two_in >= 0.88
