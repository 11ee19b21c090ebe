"""The engine as users get it: elsewhere its programs are compiled with little effort."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ntkstats import kernels

from . import zoo
from .oracle import error, kernel
from .test_structured import SOME

pytestmark = pytest.mark.optimised


@pytest.mark.parametrize("name", SOME)
def test_kernel_and_its_diagonal_equal_dense_jacobians(name):
    s = zoo.system(name)
    plan = kernels.plan(*s.arguments, head=s.head, checked=True)

    @jax.jit
    def both(*arguments):
        return plan.gram(*arguments), plan.diagonal(*arguments)

    K, diagonal = both(*s.arguments[1:])
    expected = kernel(zoo.dense(name), "full")
    assert plan.method == "structured"
    assert error(K.matrix, expected) <= 1e-5
    np.testing.assert_allclose(diagonal.sum(0).ravel(), np.diagonal(expected), rtol=5e-5)
