"""Models whose samples interact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.errors import CoupledSamplesError
from ntkstats.kernels._tiles import Tiling
from ntkstats.kernels._types import OUTPUT_MODES
from ntkstats.models import as_model

from ..models.cases import plain_mlp
from .networks import GRAPH, N, graph_network, retiled, system
from .oracle import error, jacobian, kernel

KEY = jax.random.key(9)


def normalised(params, x):
    """Batch normalisation in training mode."""
    hidden = x @ params["in"]
    hidden = (hidden - hidden.mean(0)) / (hidden.std(0) + 0.1)
    return jnp.tanh(hidden) @ params["out"]


PARAMS = {
    "in": jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32),
    "out": jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)), jnp.float32),
}


@pytest.mark.parametrize("outputs", OUTPUT_MODES)
def test_batch_normalisation_in_training_mode_equals_dense_jacobians(outputs):
    model = as_model(normalised, coupled=True)
    params, state = model.split(PARAMS)
    x = GRAPH["features"]
    plan = kernels.plan(model, params, state, x, outputs=outputs, key=KEY)
    K = plan.gram(params, state, x)
    assert error(K.matrix, kernel(jacobian(model, params, state, x), outputs, plan.signs)) < 1e-5


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_kernel_of_one_graph_does_not_depend_on_the_tiles(outputs):
    s = system("graph")
    whole = kernels.empirical_ntk(*s.arguments, outputs=outputs)
    plan = kernels.plan(*s.arguments, outputs=outputs)
    tiled = retiled(plan, Tiling(4, 1)).gram(*s.arguments[1:])
    assert error(tiled.matrix, whole.matrix) < 1e-6


def test_a_sample_alone_has_another_kernel():
    """The whole probe takes part: a sub-kernel is not the kernel of a subset."""
    model = as_model(normalised, coupled=True)
    params, state = model.split(PARAMS)
    x = GRAPH["features"]
    whole = np.asarray(kernels.empirical_ntk(model, params, state, x, outputs="trace").matrix)
    part = kernels.empirical_ntk(model, params, state, x[:4], outputs="trace").matrix
    assert error(part, whole[:4, :4]) > 0.01


def test_declaring_independent_samples_coupled_changes_nothing():
    s = system("mlp")
    model = as_model(plain_mlp, coupled=True)
    params, state = model.split(s.params)
    coupled = kernels.empirical_ntk(model, params, state, s.x)
    assert error(coupled.matrix, kernels.empirical_ntk(*s.arguments).matrix) < 1e-6


@pytest.mark.parametrize(
    "door",
    [kernels.empirical_ntk, kernels.ntk_diagonal, kernels.ntk_trace, kernels.ntk_operator],
)
def test_undeclared_interactions_are_refused_at_every_door(door):
    model = as_model(graph_network)
    with pytest.raises(CoupledSamplesError, match="coupled=True"):
        door(model, *model.split(system("graph").params), GRAPH)


def test_operator_propagates_the_whole_probe():
    op = kernels.ntk_operator(*system("graph").arguments)
    assert op.chunk == N
