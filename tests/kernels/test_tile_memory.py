"""The tiling that is chosen fits its budget also when XLA has rewritten the program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.models import as_model

from ..models.cases import plain_mlp
from .networks import mlp_params

pytestmark = pytest.mark.optimised


def temporary_bytes(plan, *arrays):
    memory = jax.jit(lambda *a: plan.gram(*a)).lower(*arrays).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def convolutional(params, x):
    for w in params["convolutions"]:
        x = jnp.tanh(
            jax.lax.conv_general_dilated(
                x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
    return x.mean((1, 2)) @ params["dense"]


def growing(name):
    """Networks whose Jacobians, or whose blocks of the kernel, exceed their budgets."""
    rng = np.random.default_rng(0)
    if name == "cnn":
        shapes = {"convolutions": [(3, 3, 4, 16), (3, 3, 16, 24)], "dense": (24, 3)}
        is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
        params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s)), shapes, is_leaf=is_shape)
        return convolutional, params, rng.normal(size=(60, 6, 6, 4)), 1_500_000
    if name == "mlp":
        return plain_mlp, mlp_params((4, 100, 100, 3)), rng.normal(size=(160, 4)), 3_000_000
    return plain_mlp, mlp_params((4, 8, 8, 8, 8, 8, 3)), rng.normal(size=(240, 4)), 5_000_000


@pytest.mark.parametrize("method", ["structured", "reference"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "many narrow leaves"])
def test_compiled_programs_stay_within_the_budget(name, method):
    """Unrolled tiles must not be merged, and products of many leaves not pile up."""
    function, params, x, budget = growing(name)
    model = as_model(function)
    params, state = model.split(params)
    x = x.astype(np.float32)
    options = {"budget_bytes": budget, "checked": True, "method": method}
    plan = kernels.plan(model, params, state, x, **options)
    assert plan.tiling.samples < len(x)
    assert plan.tiling.unroll == (name == "cnn")
    used = temporary_bytes(plan, params, state, x)
    assert 0.2 * budget < used < 1.1 * budget
