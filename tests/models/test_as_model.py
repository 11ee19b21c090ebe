"""Modes, heads, keys, holders and mistakes at the door `as_model`."""

import subprocess
import sys
import textwrap
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ntkstats.errors import ModelError, NtkStatsError, ParamsError
from ntkstats.models import as_model

from .cases import (
    EQX_BN,
    KEY,
    LINEN_BN,
    LINEN_BN_STATE,
    NNX_BN,
    LinenBatchNorm,
    LinenMLP,
    NnxBatchNorm,
    X,
    plain_mlp,
)

W = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


def linear(params, x):
    return x @ params


def run(model, obj, x=X):
    return jax.jit(model.apply)(*model.split(obj), x)


# --- what the loop holds ----------------------------------------------------------------------


def test_a_train_state_is_enough_to_build_the_model():
    state = LINEN_BN_STATE.build()
    np.testing.assert_array_equal(
        run(as_model(state), state)["output"], run(as_model(LinenBatchNorm()), state)["output"]
    )


def test_a_train_state_whose_params_are_all_variables_is_understood():
    variables = LINEN_BN.build()

    class Holder(NamedTuple):
        params: dict

    model = as_model(LinenBatchNorm())
    np.testing.assert_array_equal(
        run(model, Holder(variables))["output"], run(model, variables)["output"]
    )


def test_nnx_holders_and_tuples_are_seen_through():
    module = NnxBatchNorm(nnx.Rngs(0))
    model = as_model(module)
    expected = run(model, module)["output"]
    optimizer = nnx.Optimizer(module, optax.sgd(0.1), wrt=nnx.Param)
    for held in ((module, optimizer), nnx.ModelAndOptimizer(module, optax.sgd(0.1))):
        np.testing.assert_array_equal(run(model, held)["output"], expected)


def test_tied_nnx_weights_are_one_parameter():
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.encode = nnx.Linear(4, 4, rngs=rngs)
            self.decode = nnx.Linear(4, 4, rngs=rngs)
            self.decode.kernel = self.encode.kernel

        def __call__(self, x):
            return self.decode(self.encode(x))

    module = Tied(nnx.Rngs(0))
    model = as_model(module)
    params, state = model.split(module)
    assert len(jax.tree.leaves(params)) == 3
    np.testing.assert_allclose(model.apply(params, state, X)["output"], module(X), rtol=1e-6)


def test_an_equinox_loop_may_hold_module_and_optimiser_state():
    module = eqx.nn.Linear(4, 2, key=KEY)
    model = as_model(module)
    held = (module, optax.adam(0.1).init(eqx.filter(module, eqx.is_array)))
    np.testing.assert_array_equal(run(model, held)["output"], run(model, module)["output"])


def test_split_reaches_into_any_object():
    holder = {"learner": {"weights": W}}
    model = as_model(linear, split=lambda obj: obj["learner"]["weights"])
    np.testing.assert_array_equal(run(model, holder)["output"], X @ W)

    module = NNX_BN.build()
    model = as_model(module, split=lambda obj: obj["net"])
    assert run(model, {"net": module})["output"].shape == (5, 2)


def test_split_works_inside_a_trace():
    model = as_model(LinenBatchNorm())
    variables = LINEN_BN.build()
    inside = jax.jit(lambda v: model.apply(*model.split(v), X))(variables)
    np.testing.assert_allclose(inside["output"], run(model, variables)["output"], rtol=1e-5)


def test_a_stateful_function_takes_known_attributes():
    class Holder(NamedTuple):
        params: jax.Array
        model_state: jax.Array

    model = as_model(lambda params, state, x: x @ params + state, has_state=True)
    np.testing.assert_array_equal(run(model, Holder(W, jnp.ones(3)))["output"], X @ W + 1)


def test_integers_strings_and_functions_among_parameters_travel_in_the_state():
    net = {"w": W, "count": jnp.array(3), "scale": 2.0, "act": jnp.tanh, "note": "a", "n": 2}
    model = as_model(lambda p, x: p["act"](x @ p["w"]) * p["count"] * p["scale"] + p["n"])
    params, state = model.split(net)
    assert params == {"w": params["w"], "scale": params["scale"]} | dict.fromkeys(
        ("act", "count", "n", "note")
    )
    expected = jnp.tanh(X @ W) * 6.0 + 2
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, state, X)["output"], expected, rtol=1e-5
    )


def test_numbers_inside_equinox_modules_stay_hyperparameters():
    modules = {"drop": eqx.nn.Dropout(0.5, inference=True), "net": eqx.nn.Linear(4, 2, key=KEY)}
    model = as_model(lambda p, x: p["drop"](jax.vmap(p["net"])(x)))
    params, _ = model.split(modules)
    assert len(jax.tree.leaves(params)) == 2
    np.testing.assert_allclose(
        run(model, modules)["output"], jax.vmap(modules["net"])(X), rtol=1e-6
    )


def test_a_function_wrapped_by_equinox_is_a_plain_function():
    model = as_model(eqx.filter_jit(linear))
    np.testing.assert_allclose(run(model, W)["output"], X @ W, rtol=1e-6)


def test_frameworks_that_were_not_imported_are_not_imported():
    code = """
    import sys
    import jax.numpy as jnp
    from ntkstats.models import as_model
    model = as_model((abs, lambda params, x, **kwargs: x @ params, abs))
    params, state = model.split(jnp.ones((3, 2)))
    assert model.apply(params, state, jnp.ones((4, 3)))["output"].shape == (4, 2)
    assert model.name == "stax", model.name
    assert not {"flax", "equinox", "neural_tangents", "torch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# --- one sample at a time ---------------------------------------------------------------------


def test_a_function_of_one_sample_is_lifted():
    model = as_model(lambda params, x: jnp.dot(x, params[:, 0]), per_sample=True)
    np.testing.assert_allclose(run(model, W)["output"], X @ W[:, 0], rtol=1e-5)
    assert model.description.endswith("one sample at a time")


def test_an_equinox_batch_model_is_not_lifted():
    class Batched(eqx.Module):
        w: jax.Array

        def __call__(self, x):
            assert x.ndim == 2
            return x @ self.w

    module = Batched(W)
    np.testing.assert_allclose(
        run(as_model(module, per_sample=False), module)["output"], X @ W, rtol=1e-6
    )


def test_another_method_can_be_called():
    class Linen(nn.Module):
        @nn.compact
        def features(self, x, train=True):
            return nn.Dense(2)(x) * (2.0 if train else 1.0)

    class Nnx(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(W)

        def features(self, x, train=True):
            return x @ self.w[...] * (2.0 if train else 1.0)

    class Eqx(eqx.Module):
        w: jax.Array

        def features(self, x):
            return x @ self.w

    variables = Linen().init(KEY, X, train=False, method="features")
    for module, obj, expected in (
        (Linen(), variables, Linen().apply(variables, X, train=False, method="features")),
        (Nnx(), Nnx(), X @ W),
        (Eqx(W), Eqx(W), X @ W),
    ):
        model = as_model(module, call_kwargs={"method": "features"})
        np.testing.assert_allclose(run(model, obj)["output"], expected, rtol=1e-5)
    doubled = as_model(Eqx(W), call_kwargs={"method": lambda module, x: 2 * module.features(x)})
    np.testing.assert_allclose(run(doubled, Eqx(W))["output"], 2 * X @ W, rtol=1e-5)


# --- heads ------------------------------------------------------------------------------------


class Out(NamedTuple):
    pi: jax.Array
    v: jax.Array


A, B = jnp.ones((5, 3)), jnp.zeros(5)


@pytest.mark.parametrize(
    ("raw", "heads", "expected"),
    [
        (A, None, {"output": A}),
        (A, ("logits",), {"logits": A}),
        ({"a": A, "b": B}, None, {"a": A, "b": B}),
        ({"a": A, "b": B}, ("b",), {"b": B}),
        (Out(A, B), None, {"pi": A, "v": B}),
        (Out(A, B), ("v",), {"v": B}),
        (Out(A, B), ("actor", "critic"), {"actor": A, "critic": B}),
        ((A, B), ("actor", "critic"), {"actor": A, "critic": B}),
        ([A, B], ["actor", "critic"], {"actor": A, "critic": B}),
        ((Out(A, B), "info"), {"actor": lambda out: out[0].pi}, {"actor": A}),
    ],
)
def test_heads_are_named(raw, heads, expected):
    outputs = run(as_model(lambda params, x: raw, heads=heads), W)
    assert set(outputs) == set(expected)
    assert all((outputs[head] == value).all() for head, value in expected.items())


@pytest.mark.parametrize(
    ("raw", "heads", "message"),
    [
        ((A, B), None, "tuple of 2 without names"),
        ("text", None, "returns a str"),
        ({"policy/logits": A}, None, "cannot be a head"),
        ({"a": "text"}, None, "'a' is a str"),
        ({}, None, "no heads at all"),
        ({"a": A}, ("b",), r"asks for \['b'\]"),
        ((A, B), ("actor",), "has 1 names and the model returns a tuple of 2"),
        (A, ("a", "b"), "has 2 names"),
        ((A, B), {"a": lambda out: out}, "'a' is a tuple"),
    ],
)
def test_an_output_that_does_not_fit_its_heads_is_refused(raw, heads, message):
    with pytest.raises(ModelError, match=message):
        run(as_model(lambda params, x: raw, heads=heads), W)


# --- mistakes ---------------------------------------------------------------------------------


class HaikuLike(NamedTuple):
    init: object
    apply: object


class NoCall(eqx.Module):
    w: jax.Array


@pytest.mark.parametrize(
    ("obj", "options", "error", "message"),
    [
        (HaikuLike(abs, abs), {}, ModelError, r"HaikuLike; expected .* function f\(params, x\)"),
        ({"w": W}, {}, ModelError, "as_model was given a dict"),
        (NoCall(W), {}, ModelError, "no __call__"),
        (NoCall(W), {"call_kwargs": {"method": "encode"}}, ModelError, "no method 'encode'"),
        (LinenMLP(), {"call_kwargs": {"method": "encode"}}, ModelError, "no method 'encode'"),
        (LinenMLP(), {"call_kwargs": {"mutable": True}}, ModelError, "no 'mutable'"),
        (LinenMLP(), {"has_state": True}, ModelError, "has_state=True was given with"),
        (linear, {"heads": "actor"}, ModelError, "sequence of names or a mapping"),
        (linear, {"heads": ()}, ModelError, "sequence of names or a mapping"),
        (linear, {"heads": {}}, ModelError, "non-empty mapping"),
        (linear, {"heads": {"a": 0}}, ModelError, "functions of the raw output"),
        (linear, {"heads": ("a", "a")}, ModelError, "twice"),
        (linear, {"heads": ("a-b",)}, ModelError, "must be identifiers"),
        (linear, {"call_kwargs": "train"}, ModelError, "expected a mapping"),
        (linear, {"call_kwargs": {1: 2}}, ModelError, "expected a mapping"),
        (linear, {"split": "params"}, ModelError, "split='params'"),
        (linear, {"name": 3}, ModelError, "name=3"),
        (linear, {"key": KEY}, ModelError, "expected a flax or Equinox module"),
        (LinenMLP(), {"key": 0}, ModelError, "expected one PRNG key"),
        (LinenMLP(), {"key": jax.random.split(KEY)}, ModelError, "expected one PRNG key"),
        (NoCall(W), {"key": KEY, "call_kwargs": {"method": linear}}, ModelError, "takes no key"),
        (linear, {"coupled": True, "per_sample": True}, ModelError, "Drop one of the two"),
        (LinenMLP(), {"coupled": True, "key": KEY}, ModelError, "draws one mask"),
        (linear, {"params_filter": 3}, ParamsError, "params_filter is 3"),
        (linear, {"params_filter": []}, ParamsError, "non-empty list of globs"),
        (as_model(linear), {"name": "again"}, ModelError, "together with other options"),
    ],
)
def test_mistakes_when_building_are_explained(obj, options, error, message):
    with pytest.raises(error, match=message):
        as_model(obj, **options)


@pytest.mark.parametrize(
    ("model", "obj", "message"),
    [
        (as_model(LinenMLP()), [W], "expected a TrainState"),
        (as_model(NNX_BN.build()), W, "expected the nnx module"),
        (as_model(NNX_BN.build()), (NNX_BN.build(), NNX_BN.build()), "exactly one module"),
        (as_model(EQX_BN.build()), W, "expected the Equinox module"),
        (as_model(EQX_BN.build()), EQX_BN.build()[0], r"expected \(module, state\)"),
        (as_model(plain_mlp), NNX_BN.build(), "plain function was given as model"),
        (as_model(linear, has_state=True), W, r"expected a pair \(params, state\)"),
        (as_model(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), key=KEY), nnx.Linear(4, 2, rngs=nnx.Rngs(0)),
         "no random stream"),
    ],
)  # fmt: skip
def test_an_object_that_cannot_be_split_is_explained(model, obj, message):
    with pytest.raises(ModelError, match=message):
        model.split(obj)


def test_a_stateful_equinox_module_must_return_its_state():
    class Forgetful(eqx.Module):
        w: jax.Array
        index: eqx.nn.StateIndex

        def __call__(self, x, state):
            return x @ self.w

    pair = eqx.nn.make_with_state(lambda: Forgetful(W, eqx.nn.StateIndex(jnp.zeros(()))))()
    with pytest.raises(ModelError, match=r"expected \(output, state\)"):
        run(as_model(pair), pair)


def test_every_refusal_is_an_ntkstats_error_and_a_value_error():
    with pytest.raises(NtkStatsError):
        as_model(3)
    with pytest.raises(ValueError, match="int"):
        as_model(3)
