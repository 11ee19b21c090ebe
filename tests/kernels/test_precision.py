"""float64 from the host, refused where it cannot be had."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats._compat import leaves_float64, x64, x64_enabled
from ntkstats.errors import PrecisionError
from ntkstats.models import as_model

from ..models.cases import plain_mlp
from .networks import X, dense, mlp_params, system
from .oracle import error, jacobian, kernel


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("mlp", "full"),
        ("mlp", "trace"),
        ("mlp", "sum"),
        ("cnn", "trace"),
        ("embedding", "full"),
        ("transformer", "trace"),
        ("nnx", "trace"),
        ("graph", "full"),
    ],
)
def test_float64_kernel_equals_dense_jacobians(name, outputs):
    s = system(name)
    K = kernels.empirical_ntk(*s.arguments, outputs=outputs, precision="float64")
    assert K.matrix.dtype == np.float64
    assert error(K.matrix, kernel(dense(name), outputs)) < 1e-10
    assert all(value.dtype == np.float64 for value in K.layer_traces.values())


def test_float64_probe_kernel_has_the_signs_of_the_float32_one():
    s = system("mlp")
    options = {"outputs": "probe", "key": jax.random.key(0)}
    wide = kernels.empirical_ntk(*s.arguments, precision="float64", **options)
    assert wide.draws.dtype == np.float64
    assert error(kernels.empirical_ntk(*s.arguments, **options).draws, wide.draws) < 1e-6


def test_float64_leaves_the_global_setting_alone():
    s = system("mlp")
    kernels.empirical_ntk(*s.arguments, outputs="trace", precision="float64")
    assert not x64_enabled()
    assert kernels.empirical_ntk(*s.arguments, outputs="trace").matrix.dtype == np.float32


def test_float32_is_the_same_as_no_precision():
    s = system("mlp")
    named = kernels.empirical_ntk(*s.arguments, precision="float32")
    np.testing.assert_array_equal(named.matrix, kernels.empirical_ntk(*s.arguments).matrix)


def test_float64_parameters_give_a_float64_kernel_without_being_asked():
    with x64():
        params, state = system("mlp").model.split(mlp_params(dtype=jnp.float64))
        K = kernels.empirical_ntk(system("mlp").model, params, state, X.astype(np.float64))
        assert K.matrix.dtype == np.float64
        assert (
            error(K.matrix, kernel(jacobian(system("mlp").model, params, state, X), "full")) < 1e-12
        )


def ask(s):
    return kernels.empirical_ntk(*s.arguments, outputs="trace", precision="float64").matrix


@pytest.mark.parametrize(
    "transform",
    [
        lambda s: jax.jit(lambda p: ask(s._replace(params=p)))(s.params),
        lambda s: jax.jit(lambda: ask(s))(),
        lambda s: jax.vmap(lambda p: ask(s._replace(params=p)))(
            jax.tree.map(lambda leaf: leaf[None], s.params)
        ),
        lambda s: jax.grad(lambda p: ask(s._replace(params=p)).sum())(s.params),
        lambda s: jax.lax.scan(lambda c, _: (c, ask(s)), 0, None, length=2),
    ],
    ids=["jit", "jit without arguments", "vmap", "grad", "scan"],
)
def test_float64_is_refused_inside_a_trace(transform):
    with pytest.raises(PrecisionError, match="Call it outside"):
        transform(system("mlp"))


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential([nn.Dense(4, dtype=jnp.float32), nn.tanh, nn.Dense(2)]),
        nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2, dtype=jnp.float32)]),
        nn.Sequential([nn.Dense(4, dtype=jnp.bfloat16), nn.tanh, nn.Dense(2)]),
    ],
    ids=["first layer", "last layer", "half precision"],
)
@pytest.mark.parametrize("door", [kernels.empirical_ntk, kernels.ntk_diagonal, kernels.ntk_trace])
def test_a_model_that_casts_is_refused(module, door):
    model = as_model(module)
    params, state = model.split(module.init(jax.random.key(0), X))
    with pytest.raises(PrecisionError, match="Remove the cast"):
        door(model, params, state, X, precision="float64")


def test_casts_are_found_wherever_they_hide():
    with x64():
        x = jnp.ones(3, jnp.float64)
        narrow = lambda x: x.astype(jnp.float32)  # noqa: E731
        for fn in (
            narrow,
            jax.jit(narrow),
            jax.checkpoint(narrow),
            lambda x: jax.lax.scan(lambda c, _: (narrow(c).astype(c.dtype), None), x, None, 2)[0],
        ):
            assert leaves_float64(fn, x)
        assert not leaves_float64(lambda x: jnp.tanh(x) + jnp.arange(3).astype(jnp.float64), x)
        assert not leaves_float64(lambda x: x.astype(jnp.int32), x)


def test_filtered_parameters_are_widened_with_the_rest():
    model = as_model(plain_mlp, params_filter="1/*")
    params, state = model.split(mlp_params())
    K = kernels.empirical_ntk(model, params, state, X, precision="float64")
    assert error(K.matrix, kernel(jacobian(model, params, state, X), "full")) < 1e-12
