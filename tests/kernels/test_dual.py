"""J^T J has the nonzero spectrum of the full kernel."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels, spectrum
from ntkstats.errors import BudgetError, KernelError
from ntkstats.models import Probe, as_model

from ..models.cases import plain_mlp
from .networks import dense, mlp_params, system
from .oracle import error, jacobian

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def small():
    model = as_model(plain_mlp)
    return (model, *model.split(mlp_params((4, 3, 2))), X)


@pytest.mark.parametrize("name", ["mlp", "cnn", "graph"])
def test_dual_is_the_jacobian_with_itself(name):
    s = system(name)
    J = dense(name).reshape(-1, dense(name).shape[-1])
    dual = kernels.ntk_dual(*s.arguments, head=s.head)
    assert error(dual.matrix, J.T @ J) < 1e-5
    assert dual.size == len(J)
    np.testing.assert_allclose(dual.trace, np.sum(J**2), rtol=1e-5)


@pytest.mark.parametrize("budget", [None, 12_000])
def test_spectrum_is_that_of_the_kernel(budget):
    arguments = small()
    dual = kernels.ntk_dual(*arguments, budget_bytes=budget, precision="float64")
    K = kernels.empirical_ntk(*arguments, precision="float64").matrix
    assert dual.matrix.shape == (23, 23)
    got = dual.spectrum_of_kernel(spectrum.eigenvalues(dual.matrix, precision="float64"))
    expected = np.linalg.eigvalsh(np.asarray(K))[::-1]
    np.testing.assert_allclose(got, expected, atol=1e-10 * expected[0])
    entropies = [spectrum.von_neumann_entropy(v) for v in (got, expected)]
    np.testing.assert_allclose(*entropies, rtol=1e-9)


def test_weights_scale_the_rows():
    model, params, state, x = small()
    weight = np.linspace(0.1, 2, len(x)).astype(np.float32)
    J = jacobian(model, params, state, x) * np.sqrt(weight)[:, None, None]
    flat = J.reshape(-1, J.shape[-1])
    dual = kernels.ntk_dual(model, params, state, Probe(x, weight=weight))
    assert error(dual.matrix, flat.T @ flat) < 1e-5


def test_more_parameters_than_outputs_give_the_whole_spectrum_too():
    s = system("mlp")
    dual = kernels.ntk_dual(*s.arguments)
    values = dual.spectrum_of_kernel(spectrum.eigenvalues(dual.matrix))
    expected = spectrum.eigenvalues(kernels.empirical_ntk(*s.arguments).matrix)
    np.testing.assert_allclose(values, expected, atol=1e-5 * float(expected[0]))


def test_bad_input_is_named():
    with pytest.raises(BudgetError, match="23 parameters"):
        kernels.ntk_dual(*small(), budget_bytes=4000)
    with pytest.raises(KernelError, match=r"expected \(23,\)"):
        kernels.ntk_dual(*small()).spectrum_of_kernel(jnp.ones(4))
