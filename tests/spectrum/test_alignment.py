from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.errors import SpectrumError
from ntkstats.spectrum import center_kernel, cka, kernel_target_alignment, kernel_velocity

N, C = 8, 3
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0])
ONE_HOT = np.eye(C)[LABELS]


def direct_alignment(K, target) -> float:
    """<K, T> / (|K| |T|) in float64, written independently."""
    return float((K * target).sum() / np.linalg.norm(K) / np.linalg.norm(target))


def centring(samples: int, outputs: int = 1) -> np.ndarray:
    return np.kron(np.eye(samples) - 1 / samples, np.eye(outputs))


@pytest.fixture
def sample_kernel(gram):
    return np.asarray(gram(N, features=4), np.float64)


@pytest.fixture
def full_kernel(gram):
    return np.asarray(gram(N * C, features=30), np.float64)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("y", [LABELS, ONE_HOT, ONE_HOT[:, 0]], ids=["labels", "one_hot", "real"])
def test_alignment_of_a_kernel_over_samples_matches_the_formula(y, centered, sample_kernel):
    targets = (ONE_HOT if y.dtype.kind == "i" else y).reshape(N, -1)
    H = centring(N) if centered else np.eye(N)
    expected = direct_alignment(H @ sample_kernel @ H, H @ targets @ targets.T @ H)
    found = kernel_target_alignment(sample_kernel, y, centered=centered)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("y", [LABELS, ONE_HOT], ids=["labels", "one_hot"])
def test_alignment_of_a_full_kernel_matches_the_formula(y, centered, full_kernel):
    H = centring(N, C) if centered else np.eye(N * C)
    target = ONE_HOT.reshape(-1, 1)  # row index sample * C + output
    expected = direct_alignment(H @ full_kernel @ H, H @ target @ target.T @ H)
    found = kernel_target_alignment(full_kernel, y, centered=centered)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_kernel_equal_to_its_target_has_alignment_one():
    np.testing.assert_allclose(kernel_target_alignment(ONE_HOT @ ONE_HOT.T, LABELS), 1.0)


def test_alignment_does_not_depend_on_the_scale_of_kernel_or_targets(sample_kernel):
    K = jnp.asarray(sample_kernel, jnp.float32)
    plain = kernel_target_alignment(K, ONE_HOT)
    np.testing.assert_allclose(kernel_target_alignment(1e25 * K, 1e-6 * ONE_HOT), plain, rtol=1e-5)


def test_centred_alignment_ignores_a_shift_of_targets(sample_kernel):
    plain = kernel_target_alignment(sample_kernel, ONE_HOT, centered=True)
    shifted = kernel_target_alignment(sample_kernel, ONE_HOT + 5.0, centered=True)
    np.testing.assert_allclose(shifted, plain, rtol=1e-10)


def test_labels_can_be_renamed_without_effect_on_a_kernel_over_samples(sample_kernel):
    renamed = np.array([70, -3, 11])[LABELS]
    assert kernel_target_alignment(sample_kernel, renamed) == kernel_target_alignment(
        sample_kernel, LABELS
    )


def test_alignment_with_constant_targets_is_nan_when_centred(sample_kernel):
    assert np.isnan(kernel_target_alignment(sample_kernel, np.ones(N), centered=True))


def test_float64_targets_do_not_widen_a_float32_kernel(gram):
    assert kernel_target_alignment(gram(N), ONE_HOT).dtype == np.float32


def test_alignment_works_under_jit_with_traced_labels(full_kernel):
    K = jnp.asarray(full_kernel, jnp.float32)
    traced = jax.jit(kernel_target_alignment)(K, jnp.asarray(LABELS))
    np.testing.assert_allclose(traced, kernel_target_alignment(K, LABELS), rtol=1e-6)


def test_centring_removes_the_mean_of_every_output(full_kernel):
    H = centring(N, C)
    found = center_kernel(full_kernel, outputs_per_sample=C)
    np.testing.assert_allclose(found, H @ full_kernel @ H, atol=1e-12)
    rows = np.asarray(found).reshape(N, C, N, C)
    np.testing.assert_allclose(rows.sum(0), 0, atol=1e-12)


def test_cka_matches_the_formula(gram):
    first, second = (np.asarray(gram(N, seed=s), np.float64) for s in (0, 1))
    H = centring(N)
    expected = direct_alignment(H @ first @ H, H @ second @ H)
    np.testing.assert_allclose(cka(first, second), expected, rtol=1e-12)
    np.testing.assert_allclose(cka(second, first), expected, rtol=1e-12)


def test_cka_is_one_for_scaled_and_shifted_kernels_and_blind_to_rotation(gram):
    rng = np.random.default_rng(0)
    J = rng.normal(size=(N, 5))
    q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    np.testing.assert_allclose(cka(J @ J.T, 3 * (J @ q) @ (J @ q).T + 2), 1.0, rtol=1e-10)


def test_cka_of_full_kernels_centres_each_output(full_kernel):
    target = np.outer(ONE_HOT.reshape(-1), ONE_HOT.reshape(-1))
    expected = kernel_target_alignment(full_kernel, LABELS, centered=True)
    np.testing.assert_allclose(cka(full_kernel, target, outputs_per_sample=C), expected, rtol=1e-12)


def test_velocity_is_one_minus_the_cosine(gram):
    first, second = (np.asarray(gram(N, seed=s), np.float64) for s in (0, 1))
    expected = 1 - direct_alignment(first, second)
    np.testing.assert_allclose(kernel_velocity(first, second), expected, rtol=1e-10)


def test_velocity_of_equal_kernels_is_exactly_zero(gram):
    assert float(kernel_velocity(gram(N), gram(N))) == 0.0


@pytest.mark.parametrize("factor", [1e-3, 3.0, 1e20])
def test_velocity_ignores_a_change_of_scale(factor, gram):
    assert float(kernel_velocity(gram(N), factor * gram(N))) < 1e-13


def test_velocity_reaches_one_for_orthogonal_kernels():
    assert float(kernel_velocity(jnp.diag(jnp.array([1.0, 0])), jnp.diag(jnp.array([0, 3.0])))) == 1


@pytest.mark.parametrize("step", [1e-2, 1e-4, 1e-5])
def test_velocity_of_nearly_equal_kernels_is_accurate_in_float32(step, gram):
    first = gram(40, seed=0)
    second = first * 1.7 + step * gram(40, seed=1)
    exact = float(kernel_velocity(np.asarray(first, np.float64), np.asarray(second, np.float64)))
    assert exact < 1e-4  # one minus a float32 cosine has an error of 1e-7
    np.testing.assert_allclose(kernel_velocity(first, second), exact, rtol=0.01, atol=2e-14)


def test_velocity_of_a_vanishing_kernel_is_nan(gram):
    assert np.isnan(kernel_velocity(gram(N), jnp.zeros((N, N))))


def test_velocity_and_cka_work_under_vmap(gram):
    stack = jnp.stack([gram(N, seed=s) for s in range(3)])
    for quantity in (kernel_velocity, cka):
        together = jax.jit(jax.vmap(quantity, in_axes=(0, None)))(stack, stack[0])
        np.testing.assert_allclose(together, [quantity(K, stack[0]) for K in stack], atol=1e-6)


def test_the_first_kernel_decides_the_precision(gram):
    K = gram(N)
    wide = np.asarray(K, np.float64)
    assert kernel_velocity(wide, K).dtype == np.float64
    assert kernel_velocity(K, wide).dtype == np.float32


@pytest.mark.parametrize("door", [cka, kernel_velocity])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((2, 2), np.float32), np.ones((3, 3), np.float32), r"K1 has shape \(2, 2\)"),
        (np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), "square"),
        (np.ones((2, 2), np.float32), np.ones((2, 2), np.int32), "K2 has dtype int32"),
    ],
)
def test_kernels_that_cannot_be_compared_are_refused(door, first, second, message):
    with pytest.raises(SpectrumError, match=message):
        door(first, second)


@pytest.mark.parametrize(
    ("size", "y", "message"),
    [
        (N, np.zeros((N, C, 1)), "expected labels"),
        (N, np.zeros(0), "expected labels"),
        (N, np.zeros(N - 1), r"8 rows and y 7 samples"),
        (N * C, np.zeros(N), "1 columns"),
        (N * C, np.zeros((N, C + 1)), "4 columns"),
        (N * C, LABELS + 1, "labels from 1 to 3"),
        (N * C, LABELS - 1, "labels from -1 to 1"),
    ],
)
def test_targets_that_do_not_fit_the_kernel_are_refused(size, y, message):
    with pytest.raises(SpectrumError, match=message):
        kernel_target_alignment(np.eye(size, dtype=np.float32), y)


@pytest.mark.parametrize("outputs", [0, -1, 5])
def test_outputs_that_do_not_divide_the_kernel_are_refused(outputs, gram):
    with pytest.raises(SpectrumError, match=f"outputs_per_sample={outputs}"):
        center_kernel(gram(N), outputs_per_sample=outputs)
