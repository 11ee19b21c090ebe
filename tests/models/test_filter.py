"""Parting and merging parameters, and their names."""

from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkstats.errors import ParamsError
from ntkstats.models import as_model, layer_names
from ntkstats.models._filter import describe_filter, leaf_paths, merge, partition
from ntkstats.models._static import Static, freeze, thaw

TREE = {
    "Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "Dense_1": {"kernel": jnp.ones((3, 1)), "lora_a": jnp.ones(1), "steps": jnp.array(4)},
    "flag": jnp.array(True),
}


def kept_paths(params_filter):
    return set(leaf_paths(partition(TREE, params_filter)[0]))


@pytest.mark.parametrize(
    ("params_filter", "expected"),
    [
        (None, {"Dense_0/kernel", "Dense_0/bias", "Dense_1/kernel", "Dense_1/lora_a"}),
        ("*/lora_*", {"Dense_1/lora_a"}),
        ("Dense_1*", {"Dense_1/kernel", "Dense_1/lora_a"}),
        (["*/bias", "*/lora_*"], {"Dense_0/bias", "Dense_1/lora_a"}),
        (lambda path, leaf: leaf.ndim == 2, {"Dense_0/kernel", "Dense_1/kernel"}),
        (lambda path, leaf: np.bool_(path.endswith("bias")), {"Dense_0/bias"}),
    ],
)
def test_filters_choose_by_name_or_value(params_filter, expected):
    assert kept_paths(params_filter) == expected


leaves = st.sampled_from([np.float32(1.5) * np.ones(2, np.float32), np.arange(3), "text", len])
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(trees)
def test_merge_undoes_partition(tree):
    tree = {"tree": tree, "one": np.ones(1, np.float32), "none": None}
    params, frozen = partition(tree)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    whole = merge(params, frozen)
    assert jax.tree.structure(whole) == jax.tree.structure(tree)
    assert all(a is b for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(tree), strict=True))


def test_filtered_parameters_travel_in_the_state_and_get_no_gradient():
    model = as_model(lambda p, x: x @ p["a"] @ p["b"], params_filter="b")
    params, state = model.split({"a": jnp.ones((3, 2)), "b": jnp.ones((2, 1))})
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(2, 1)]
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(3, 2)]
    assert model.apply(params, state, jnp.ones((1, 3)))["output"] == 6.0
    assert model.covers == "b"


@pytest.mark.parametrize(
    ("params_filter", "words"),
    [
        (None, "all"),
        ("*/b", "*/b"),
        (["a", "b"], "a | b"),
        (kept_paths, "predicate kept_paths"),
    ],
)
def test_filters_are_described_in_words(params_filter, words):
    assert describe_filter(params_filter) == words


@pytest.mark.parametrize(
    ("tree", "params_filter", "message"),
    [
        (TREE, "Dense_9/*", r"'Dense_9/\*' keeps no parameter; .* are Dense_0/bias"),
        ({"n": jnp.arange(3)}, None, "no real floating-point parameter .* dtype int32"),
        ({}, None, "among 0 leaves"),
        ({"a": "text"}, None, "among 1 leaves"),
        ({"z": jnp.ones(2, complex)}, None, "'z' is complex .* real and imaginary"),
        (TREE, lambda path, leaf: None, "returned None for the parameter"),
    ],
)
def test_parameters_that_cannot_be_differentiated_are_refused(tree, params_filter, message):
    with pytest.raises(ParamsError, match=message):
        partition(tree, params_filter)


def test_a_complex_leaf_may_be_left_out():
    params, frozen = partition({"z": jnp.ones(2, complex), "w": jnp.ones(2)}, "w")
    assert leaf_paths(params) == ("w",)
    assert leaf_paths(frozen) == ("z",)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": jnp.ones(2), "c": jnp.ones(2)}, "unknown leaves are c"),
        ({"a": jnp.ones(2)}, "another structure"),
        ([jnp.ones(2), jnp.ones(2)], "unknown leaves are 0, 1"),
        ({"a": jnp.ones(2), "b": jnp.ones(2)}, "leaves that the filter left out"),
    ],
)
def test_parameters_of_another_split_are_refused(params, message):
    _, frozen = partition({"a": jnp.ones(2), "b": jnp.ones(2)}, "a")
    with pytest.raises(ParamsError, match=message):
        merge(params, frozen)


class Pair(NamedTuple):
    w: jax.Array
    b: jax.Array


def test_layers_have_human_names_for_every_kind_of_tree():
    one = jnp.ones(1)
    linear = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    for tree, expected in [
        ({"Dense_0": {"kernel": one}}, (("Dense_0", "Dense_0/kernel"),)),
        ([(one, one), (one,)], (("0", "0/0"), ("0", "0/1"), ("1", "1/0"))),
        ({"w": one}, (("w", "w"),)),
        (one, (("params", "params"),)),
        ([Pair(one, one)], (("0", "0/w"), ("0", "0/b"))),
        ({"m": linear}, (("m", "m/weight"), ("m", "m/bias"))),
        (nn.FrozenDict({"a": {"b": one}}), (("a", "a/b"),)),
        ({"a": {"b": nn.Partitioned(one, ("x",))}}, (("a", "a/b"),)),
        (
            nnx.state(nnx.Linear(1, 1, rngs=nnx.Rngs(0))),
            (("bias", "bias"), ("kernel", "kernel")),
        ),
        ({"a": {"x": None, "y": one}}, (("a", "a/y"),)),
    ]:
        assert layer_names(tree) == expected
        assert len(expected) == len(jax.tree.leaves(tree))


def test_nnx_models_name_layers_as_their_attributes():
    module = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.relu)
    params, _ = as_model(module).split(module)
    assert layer_names(params) == (
        ("layers/0", "layers/0/bias"),
        ("layers/0", "layers/0/kernel"),
    )


def test_layer_names_follow_the_order_of_the_leaves():
    params, _ = partition(TREE)
    by_name = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
    assert by_name["Dense_0/kernel"] is TREE["Dense_0"]["kernel"]
    assert by_name["Dense_1/lora_a"] is TREE["Dense_1"]["lora_a"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (1, True, False),
        (1, 1.0, False),
        ([1, 2], [1, 2], True),
        (len, len, True),
        ([np.ones(2)], [np.ones(2)], False),
    ],
)
def test_static_values_compare_by_type_and_value(one, other, same):
    assert (Static(one) == Static(other)) is same
    if same:
        assert hash(Static(one)) == hash(Static(other))


def test_static_differs_from_everything_else():
    assert Static(1) != 1
    assert repr(Static("a")) == "Static('a')"


def test_equal_static_values_do_not_retrace():
    traces = []

    @jax.jit
    def run(tree):
        traces.append(1)
        return thaw(tree)["w"] * thaw(tree)["options"]["scale"]

    for _ in range(2):
        run({"w": jnp.ones(2), "options": Static({"scale": 2})})
    assert len(traces) == 1


def test_numbers_freeze_to_strong_arrays():
    frozen = freeze({"f": 0.5, "i": 3, "b": True})
    assert [leaf.dtype for leaf in jax.tree.leaves(frozen)] == [bool, jnp.float32, jnp.int32]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(frozen))
