"""Facts about what the literature's code computes, by hand-computed values."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.errors import SpectrumError
from ntkstats.spectrum import (
    CONVENTIONS,
    Convention,
    as_convention,
    effective_entropy,
    entropy,
    spectral_distribution,
    von_neumann_entropy,
)

TWO_TINY_MODES = np.r_[1e-12, 1e-12, np.zeros(98)].astype(np.float32)


def test_two_tiny_modes_among_a_hundred_show_the_difference():
    # By hand: 2e-12 + 98e-14 = 2.98e-12, p = 0.33557 twice and 0.0033557 for the floor.
    np.testing.assert_allclose(von_neumann_entropy(TWO_TINY_MODES), np.log(2), rtol=1e-6)
    found = von_neumann_entropy(TWO_TINY_MODES, convention="znnl")
    np.testing.assert_allclose(found, 2.606, atol=5e-4)


def test_the_ancestor_reports_entropy_over_log_n():
    # By hand: -(3/4 ln 3/4 + 1/4 ln 1/4) = 0.5623351; over ln 2 = 0.8112781.
    values = jnp.array([3.0, 1.0])
    np.testing.assert_allclose(von_neumann_entropy(values, convention="znnl"), 0.5623351, rtol=1e-6)
    np.testing.assert_allclose(entropy(values, convention="znnl"), 0.8112781, rtol=1e-6)
    np.testing.assert_allclose(entropy(values), 0.5623351, rtol=1e-6)


def test_znnl_raises_negative_and_zero_eigenvalues_to_its_floor():
    p = spectral_distribution(jnp.array([1e-14, 0.0, -1.0]), convention="znnl")
    np.testing.assert_allclose(p, np.full(3, 1 / 3), rtol=1e-6)


def test_znnl_gives_a_zero_kernel_maximal_entropy_and_ours_gives_nan():
    np.testing.assert_allclose(entropy(jnp.zeros(5), convention="znnl"), 1.0, rtol=1e-6)
    assert np.isnan(entropy(jnp.zeros(5)))


def test_znnl_reduced_has_a_floor_of_1e_minus_11_before_normalising():
    p = spectral_distribution(jnp.array([3e-11, 0.0]), convention="znnl-reduced")
    np.testing.assert_allclose(p, [0.75, 0.25], rtol=1e-6)


def test_offline_2024_has_a_floor_under_the_normalised_eigenvalues():
    p = spectral_distribution(jnp.array([1.0, 0.0, 0.0]), convention="offline-2024")
    np.testing.assert_allclose(p, [1.0, 1e-8, 1e-8], rtol=1e-6)
    # By hand: two floors add 2 * 1e-8 * ln 1e8 = 3.684e-7 to the entropy of one mode.
    found = entropy(jnp.array([1.0, 0.0, 0.0]), convention="offline-2024")
    np.testing.assert_allclose(found, 3.684e-7, rtol=1e-3)


@pytest.mark.parametrize("name", ["znnl", "znnl-reduced"])
def test_absolute_floors_depend_on_the_scale_and_ours_does_not(name):
    values = np.array([1.0, 0.5, 0.0, 0.0], np.float32)
    tiny = values * np.float32(2.0**-40)
    assert entropy(tiny) == entropy(values)
    assert abs(float(entropy(tiny, convention=name) - entropy(values, convention=name))) > 0.01


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_conventions_agree_where_no_eigenvalue_is_small(name):
    values = jnp.array([4.0, 3.0, 2.0, 1.0])
    np.testing.assert_allclose(
        von_neumann_entropy(values, convention=name), von_neumann_entropy(values), rtol=1e-6
    )


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_entropy_is_one_of_the_two_named_entropies(name):
    values = jnp.array([4.0, 3.0, 0.0])
    measure = effective_entropy if CONVENTIONS[name].divided_by_log_n else von_neumann_entropy
    assert entropy(values, convention=name) == measure(values, convention=name)


def test_every_convention_is_stored_under_its_own_name_with_a_source():
    for name, convention in CONVENTIONS.items():
        assert convention.name == name
        assert convention.source
        assert convention.note


def test_conventions_cannot_be_changed():
    with pytest.raises(TypeError):
        CONVENTIONS["ntkstats"] = CONVENTIONS["znnl"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONVENTIONS["ntkstats"].clip = 0.0


def test_a_convention_of_ones_own_is_followed():
    mine = dataclasses.replace(CONVENTIONS["znnl"], name="mine", clip=1.0)
    assert as_convention(mine) is mine
    p = spectral_distribution(jnp.array([3.0, 0.0]), convention=mine)
    np.testing.assert_allclose(p, [0.75, 0.25], rtol=1e-6)


def test_a_relative_floor_after_normalising_is_followed():
    mine = Convention(
        name="mine",
        clip=1e6,
        relative=True,
        before=False,
        floors=True,
        divided_by_log_n=False,
        note="a floor in units of rounding",
        source="this test",
    )
    floor = 1e6 * 2 * np.finfo(np.float32).eps
    np.testing.assert_allclose(
        spectral_distribution(jnp.array([8.0, 0.0]), convention=mine), [1.0, floor], rtol=1e-6
    )


@pytest.mark.parametrize("door", [von_neumann_entropy, effective_entropy, entropy])
def test_an_unknown_convention_is_refused_with_the_known_ones(door):
    with pytest.raises(SpectrumError, match=r"'papyrus'.*znnl-reduced"):
        door(jnp.ones(2), convention="papyrus")
