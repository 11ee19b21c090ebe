"""Error bars in expectation: over fixed seeds, within stated bounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.errors import SpectrumError
from ntkstats.spectrum import (
    eigenvalues,
    exact,
    jackknife_draws,
    jackknife_samples,
    participation_ratio,
    von_neumann_entropy,
)
from ntkstats.typing import Estimate


def entropy_of(K):
    return von_neumann_entropy(eigenvalues(K, solver="eigh"))


# --- draws ------------------------------------------------------------------------------------

N, C, P, DRAWS, REPEATS = 12, 10, 24, 8, 300


def class_jacobians() -> np.ndarray:
    """J [C, N, P] with gradients of uneven norms."""
    return np.random.default_rng(0).normal(size=(C, N, P)) * np.linspace(1.5, 0.4, N)[:, None]


@pytest.fixture(scope="module")
def probe_estimates():
    """Plain entropies and jackknife estimates of many independent sets of sign-probe kernels."""
    J = jnp.asarray(class_jacobians(), jnp.float32)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(REPEATS, DRAWS, C))
    signs = jnp.asarray(signs, jnp.float32)

    def one(s):
        rows = jnp.einsum("dc,cnp->dnp", s, J)
        draws = jnp.einsum("dnp,dmp->dnm", rows, rows)
        estimate = jackknife_draws(draws, lambda K: (entropy_of(K), jnp.trace(K)))
        return entropy_of(draws.mean(0)), *estimate.value, *estimate.stderr

    plain, value, trace, stderr, trace_stderr = jax.jit(jax.vmap(one))(signs)
    trace_kernel = jnp.einsum("cnp,cmp->nm", J, J)
    return {
        "truth": float(entropy_of(trace_kernel)),
        "plain": np.asarray(plain, float),
        "value": np.asarray(value, float),
        "stderr": np.asarray(stderr, float),
        "true trace": float(jnp.trace(trace_kernel)),
        "trace": np.asarray(trace, float),
        "trace stderr": np.asarray(trace_stderr, float),
    }


def test_jackknife_over_draws_removes_most_of_the_bias(probe_estimates):
    truth = probe_estimates["truth"]
    plain_bias = probe_estimates["plain"].mean() - truth
    left = probe_estimates["value"].mean() - truth
    noise = probe_estimates["value"].std() / np.sqrt(REPEATS)
    assert plain_bias < -10 * noise  # the mean of few draws has too little entropy
    assert abs(left) < 0.2 * abs(plain_bias)


def test_standard_error_over_draws_matches_the_spread(probe_estimates):
    spread = probe_estimates["value"].std()
    assert 0.8 * spread < np.sqrt((probe_estimates["stderr"] ** 2).mean()) < 1.25 * spread


def test_two_standard_errors_over_draws_cover_the_truth(probe_estimates):
    off = np.abs(probe_estimates["value"] - probe_estimates["truth"])
    coverage = (off < 2 * probe_estimates["stderr"]).mean()
    assert 0.88 < coverage <= 0.98


def test_the_trace_over_draws_is_unbiased_with_a_standard_error_that_covers(probe_estimates):
    off = probe_estimates["trace"] - probe_estimates["true trace"]
    assert abs(off.mean()) < 3 * off.std() / np.sqrt(REPEATS)
    typical = np.sqrt((probe_estimates["trace stderr"] ** 2).mean())
    assert 0.8 * off.std() < typical < 1.25 * off.std()
    assert 0.85 < (np.abs(off) < 2 * probe_estimates["trace stderr"]).mean() <= 0.98


def test_a_linear_statistic_of_draws_is_unbiased_and_has_the_classic_error():
    traces = np.random.default_rng(0).uniform(1, 2, 12)
    draws = jnp.asarray(traces[:, None, None] * np.eye(3), jnp.float32)
    found = jackknife_draws(draws, jnp.trace, seed=7)
    np.testing.assert_allclose(found.value, 3 * traces.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.stderr, 3 * traces.std(ddof=1) / np.sqrt(12), rtol=1e-5)
    assert found.method == "jackknife over 12 draws"
    assert (found.cost, found.seed) == (13, 7)


def test_jackknife_over_draws_corrects_a_square_exactly():
    # The square of a mean is biased by the variance over D, which the jackknife removes exactly.
    x = np.array([1.0, 2.0, 4.0, 9.0])
    found = jackknife_draws(jnp.asarray(x[:, None, None], jnp.float32), lambda K: K[0, 0] ** 2)
    np.testing.assert_allclose(found.value, x.mean() ** 2 - x.var(ddof=1) / 4, rtol=1e-5)


def test_statistics_may_be_pytrees_of_arrays(gram):
    draws = jnp.stack([gram(5, seed=s) for s in range(4)])
    found = jackknife_draws(draws, lambda K: {"diag": jnp.diagonal(K), "trace": jnp.trace(K)})
    assert found.value["diag"].shape == found.stderr["diag"].shape == (5,)
    np.testing.assert_allclose(found.value["diag"].sum(), found.value["trace"], rtol=1e-5)


def test_equal_draws_have_no_error(gram):
    draws = jnp.stack([gram(5)] * 3)
    found = jackknife_draws(draws, entropy_of)
    np.testing.assert_allclose(found.value, entropy_of(draws[0]), rtol=1e-6)
    assert float(found.stderr) < 1e-5


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 3), "at least two"),
        ((3, 3), "at least two"),
        ((), "at least two"),
        ((2, 3, 4), "each draw has shape"),
        ((2, 0, 0), "each draw"),
    ],
)
def test_draws_that_are_not_several_kernels_are_refused(shape, message):
    with pytest.raises(SpectrumError, match=message):
        jackknife_draws(np.zeros(shape, np.float32), jnp.trace)


# --- samples ----------------------------------------------------------------------------------


def mean_diagonal_of(K):
    return jnp.mean(jnp.diagonal(K))


@pytest.mark.parametrize(("samples", "blocks"), [(12, 12), (13, 4), (11, 10), (7, 2)])
def test_samples_match_an_independent_delete_block_computation(samples, blocks, gram):
    K = np.asarray(gram(samples), np.float64)
    found = jackknife_samples(K, participation_ratio, blocks=blocks, bias_corrected=True)

    def direct(rows):
        part = K[np.ix_(rows, rows)]
        return np.trace(part) ** 2 / (part**2).sum()

    everything = np.arange(samples)
    whole = direct(everything)
    h = np.array([samples / (everything % blocks == b).sum() for b in range(blocks)])
    left_out = np.array([direct(everything[everything % blocks != b]) for b in range(blocks)])
    # Delete-m jackknife in the notation of Busing et al. 1999.
    corrected = blocks * whole - ((1 - 1 / h) * left_out).sum()
    pseudo = h * whole - (h - 1) * left_out
    variance = ((pseudo - corrected) ** 2 / (h - 1)).mean()
    np.testing.assert_allclose(found.value, corrected, rtol=1e-10)
    np.testing.assert_allclose(found.stderr, np.sqrt(variance), rtol=1e-8)


def test_a_mean_over_samples_has_the_classic_error():
    diagonal = np.random.default_rng(0).uniform(1, 2, 20)
    found = jackknife_samples(np.diag(diagonal), mean_diagonal_of, blocks=20)
    np.testing.assert_allclose(found.value, diagonal.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.stderr, diagonal.std(ddof=1) / np.sqrt(20), rtol=1e-10)


def test_value_is_the_statistic_itself_and_n_is_reported(gram):
    K = gram(15)
    found = jackknife_samples(K, entropy_of, blocks=5)
    assert isinstance(found, Estimate)
    np.testing.assert_allclose(found.value, entropy_of(K), rtol=1e-6)
    assert found.method == "jackknife over 5 blocks of 15 samples"
    assert (found.cost, found.seed) == (6, None)


def test_samples_keep_their_outputs_together():
    per_sample = np.random.default_rng(0).uniform(1, 2, 9)
    K = np.kron(np.diag(per_sample), np.diag([1.0, 2.0]))
    found = jackknife_samples(K, mean_diagonal_of, blocks=9, outputs_per_sample=2)
    np.testing.assert_allclose(found.stderr, 1.5 * per_sample.std(ddof=1) / 3, rtol=1e-10)


def test_standard_error_over_samples_matches_the_spread_over_probes():
    rng = np.random.default_rng(0)
    n, repeats, features = 30, 200, 5
    scales = np.linspace(2.0, 0.5, features)

    def one(J):
        estimate = jackknife_samples(J @ J.T, entropy_of, blocks=10)
        return estimate.value, estimate.stderr

    J = jnp.asarray(rng.normal(size=(repeats, n, features)) * scales, jnp.float32)
    value, stderr = jax.jit(lambda J: jax.lax.map(one, J))(J)
    spread = np.asarray(value).std()
    assert 0.8 * spread < np.sqrt((np.asarray(stderr) ** 2).mean()) < 1.3 * spread
    coverage = (np.abs(value - value.mean()) < 2 * stderr).mean()
    assert 0.88 < coverage <= 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 1}, "blocks=1 with 6 samples"),
        ({"blocks": 7}, "blocks=7 with 6 samples"),
        ({"blocks": 3, "outputs_per_sample": 4}, "outputs_per_sample=4"),
        ({"blocks": 4, "outputs_per_sample": 2}, "blocks=4 with 3 samples"),
    ],
)
def test_blocks_that_do_not_fit_the_samples_are_refused(options, message, gram):
    with pytest.raises(SpectrumError, match=message):
        jackknife_samples(gram(6), entropy_of, **options)


def test_samples_of_what_is_not_a_kernel_are_refused():
    with pytest.raises(SpectrumError, match="square"):
        jackknife_samples(np.zeros((3, 4), np.float32), entropy_of)


# --- exact ------------------------------------------------------------------------------------


def test_an_exact_number_has_no_error():
    found = exact({"trace": jnp.array([1.0, 2.0])})
    assert found.method == "exact"
    assert found.stderr["trace"].tolist() == [0.0, 0.0]
    assert (found.cost, found.seed) == (1, None)
