"""Models are evaluated as they are used, unless dropout is left on."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ntkstats.errors import ModelError
from ntkstats.models import as_model

from .cases import (
    EQX_BN,
    IMAGES,
    KEY,
    LINEN_BN,
    NNX_BN,
    EqxBatchNorm,
    LinenBatchNorm,
    LinenMLP,
    LinenTransformer,
    NnxBatchNorm,
    X,
    plain_mlp,
)


def run(model, obj, x=X):
    return jax.jit(model.apply)(*model.split(obj), x)


# --- evaluation mode --------------------------------------------------------------------------


def test_what_was_switched_is_said_in_the_description():
    assert as_model(LinenBatchNorm()).description == (
        "flax linen module LinenBatchNorm (train=False)"
    )
    assert "deterministic=True" in as_model(LinenTransformer()).description
    assert as_model(LinenMLP()).description == "flax linen module LinenMLP"
    assert "use_running_average=True" in as_model(NNX_BN.build()).description
    assert "inference=True" in as_model(EQX_BN.build()).description
    assert as_model(plain_mlp).description == "function plain_mlp"


def test_call_kwargs_win_over_the_automatic_mode():
    model = as_model(LinenBatchNorm(), call_kwargs={"train": True})
    assert "train=True" in model.description
    with pytest.raises(ModelError, match="training mode"):
        run(model, LINEN_BN.build())


def test_a_linen_switch_kept_as_a_field_is_set():
    class Net(nn.Module):
        deterministic: bool = False

        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=self.deterministic)(nn.Dense(2)(x))

    variables = Net(deterministic=True).init(KEY, X)
    model = as_model(Net())
    expected = Net(deterministic=True).apply(variables, X)
    np.testing.assert_allclose(run(model, variables)["output"], expected, rtol=1e-6)
    assert "deterministic=True" in model.description


def test_an_nnx_switch_without_set_view_or_in_the_signature_is_set():
    class Noisy(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.ones(4))
            self.deterministic = False

        def __call__(self, x, training=True):
            factor = 1.0 if self.deterministic else 2.0
            return x * self.scale[...] * (3.0 if training else 1.0) * factor

    live = Noisy()
    np.testing.assert_array_equal(run(as_model(live), live)["output"], X)
    assert live.deterministic is False


def test_an_nnx_module_that_keeps_its_mode_under_another_name_is_asked_to_set_it():
    class Noisy(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.ones(4))
            self.noise = 1.0

        def set_view(self, deterministic=None):
            self.noise = 0.0 if deterministic else 1.0

        def __call__(self, x):
            return x * self.scale[...] + self.noise

    live = Noisy()
    np.testing.assert_array_equal(run(as_model(live), live)["output"], X)
    assert live.noise == 1.0


def test_a_missing_batch_statistic_is_said_and_not_invented():
    variables = LINEN_BN.build()
    with pytest.raises(ModelError, match="batch_stats"):
        run(as_model(LinenBatchNorm()), variables["params"])


def test_an_equinox_state_survives_layers_that_write_to_it():
    class Counter(eqx.Module):
        index: eqx.nn.StateIndex
        scale: jax.Array

        def __init__(self):
            self.index = eqx.nn.StateIndex(jnp.array(1.0))
            self.scale = jnp.ones(4)

        def __call__(self, x, state):
            count = state.get(self.index)
            return x * self.scale * count, state.set(self.index, count + 1)

    module, state = eqx.nn.make_with_state(Counter)()
    model = as_model((module, state))
    params, model_state = model.split((module, state))
    for _ in range(2):
        np.testing.assert_array_equal(model.apply(params, model_state, X)["output"], X)
    assert state.get(module.index) == 1.0


# --- dropout left on --------------------------------------------------------------------------


class LinenDropout(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic: bool):
        x = nn.BatchNorm(use_running_average=True)(nn.Dense(16)(x))
        return nn.Dropout(0.5, deterministic=deterministic)(x)


def linen_dropout():
    return LinenDropout(), LinenDropout().init({"params": KEY}, X, True), X


def nnx_dropout():
    module = NnxBatchNorm(nnx.Rngs(0))
    return module, module, X


def equinox_dropout():
    pair = EQX_BN.build()
    return pair, pair, IMAGES


@pytest.mark.parametrize("build", [linen_dropout, nnx_dropout, equinox_dropout])
def test_a_key_draws_one_mask_for_all_samples(build):
    network, obj, x = build()
    twins = np.concatenate([x[:1], x[:1], x[1:]])

    def outputs(key, x=twins):
        model = as_model(network, key=key)
        return jax.jit(model.apply)(*model.split(obj), x)["output"]

    masked = outputs(jax.random.key(3))
    np.testing.assert_allclose(masked[0], masked[1], rtol=1e-5)
    np.testing.assert_allclose(masked[:2], outputs(jax.random.key(3), twins[:2]), rtol=1e-5)
    assert masked.shape == outputs(None).shape
    assert not np.allclose(masked, outputs(None))
    assert not np.allclose(masked, outputs(jax.random.key(4)))


def test_batch_statistics_stay_running_while_dropout_is_on():
    module = NnxBatchNorm(nnx.Rngs(0))
    module.dropout.rate = 0.0
    np.testing.assert_allclose(
        run(as_model(module, key=KEY), module)["output"],
        run(as_model(module), module)["output"],
        rtol=1e-5,
    )
    module, state = eqx.nn.make_with_state(EqxBatchNorm)(KEY)
    module = eqx.tree_at(lambda m: m.dropout.p, module, 0.0)
    np.testing.assert_allclose(
        run(as_model(module, key=KEY), (module, state), IMAGES)["output"],
        run(as_model(module), (module, state), IMAGES)["output"],
        rtol=1e-5,
    )


def test_dropout_inside_an_equinox_sequential_stays_on():
    norm = lambda: eqx.nn.BatchNorm(4, "batch", mode="batch")  # noqa: E731
    layers = eqx.nn.Sequential([eqx.nn.Lambda(jnp.tanh), eqx.nn.Dropout(0.5), norm()])
    pair = eqx.nn.make_with_state(lambda: layers)()
    on = run(as_model(pair, key=jax.random.key(1)), pair)["output"]
    off = run(as_model(pair), pair)["output"]
    np.testing.assert_allclose(off, jnp.tanh(X) / jnp.sqrt(1 + 1e-5), rtol=1e-5)
    dropped = on == 0.0
    assert (dropped == dropped[0]).all()
    assert 0 < dropped[0].sum() < 4
    np.testing.assert_allclose(on[~dropped], 2 * off[~dropped], rtol=1e-5)


def test_an_old_style_key_is_a_key():
    module = NnxBatchNorm(nnx.Rngs(0))
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    np.testing.assert_array_equal(
        *(run(as_model(module, key=key), module)["output"] for key in (old, new))
    )


def test_linen_training_mode_with_batch_norm_is_explained():
    model = as_model(LinenBatchNorm(), key=KEY)
    with pytest.raises(ModelError, match="dropout switch is not that of its batch norm"):
        run(model, LINEN_BN.build())
