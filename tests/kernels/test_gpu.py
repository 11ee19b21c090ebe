"""Kernels and spectra on a GPU; `make test-gpu` runs them where there is one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels, spectrum

from . import zoo
from .oracle import error, jacobian, kernel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU"),
]


@pytest.mark.parametrize("name", sorted(zoo.SYSTEMS))
def test_full_kernel_of_every_network(name):
    """Our products are in full float32; the model's own may be in TF32, which costs digits."""
    s = zoo.system(name)
    with jax.default_matmul_precision("highest"):
        K = kernels.empirical_ntk(*s.arguments, head=s.head)
    J = jacobian(*s.arguments, head=s.head)
    assert error(K.matrix, kernel(J, "full")) < 1e-5


def test_sizes_that_need_several_tiles_and_groups():
    s = zoo.system("encoder")
    whole = kernels.empirical_ntk(*s.arguments, head=s.head)
    tight = kernels.empirical_ntk(*s.arguments, head=s.head, budget_bytes=2**21)
    assert error(tight.matrix, whole.matrix) < 1e-3


@pytest.mark.parametrize("n", [300, 3000])
def test_solvers_agree(n):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = np.geomspace(1, 1e-6, n)
    K = jnp.asarray((basis * values) @ basis.T, jnp.float32)
    for solver in ("auto", "eigh", "host"):
        found = spectrum.eigenvalues(K, solver=solver)
        np.testing.assert_allclose(found, values, atol=1e-5)
