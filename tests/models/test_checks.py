"""Checks of a model on a probe: shapes, heads, and the test for interacting samples."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.errors import (
    ComplexOutputError,
    CoupledSamplesError,
    HeadError,
    ModelError,
    ParamsError,
    ProbeError,
)
from ntkstats.models import Model, Probe, as_model, check_model, head_of

from .cases import LINEN_BN, LinenBatchNorm, LinenMLP

X = np.asarray(jax.random.normal(jax.random.key(0), (6, 4)))
W = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
TOKENS = np.array([[1, 2], [3, 4], [5, 6], [0, 1]])


def check(function, params=W, x=X, **options):
    head = options.pop("head", None)
    model = as_model(function, **options)
    return check_model(model, *model.split(params), Probe(x), head=head)


# --- shapes -----------------------------------------------------------------------------------


def test_shapes_of_all_heads_are_returned():
    def model(w, x):
        return {"a": x @ w, "b": (x @ w)[:, 0], "c": jnp.einsum("ni,jk->nijk", x, w)}

    shapes = check(model)
    assert {head: shape.shape for head, shape in shapes.items()} == {
        "a": (6, 3),
        "b": (6,),
        "c": (6, 4, 4, 3),
    }


def test_only_the_head_asked_for_is_checked():
    def model(w, x):
        return {"logits": x @ w, "action": jnp.argmax(x @ w, 1)}

    assert list(check(model, head="logits")) == ["logits"]
    with pytest.raises(ModelError, match="'action' has dtype int32"):
        check(model)


def test_one_sample_is_enough():
    assert check(lambda w, x: x @ w, x=X[:1])["output"].shape == (1, 3)


def test_shapes_can_be_checked_with_traced_parameters():
    model = as_model(lambda w, x: x @ w - jnp.mean(x @ w, 0))
    _, state = model.split(W)
    shapes = []
    jax.jit(lambda w: shapes.append(check_model(model, w, state, Probe(X))))(W)
    assert shapes[0]["output"].shape == (6, 3)


def linen_state():
    return LinenMLP().init(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda w, x: jnp.sum(x @ w), ModelError, r"shape \(\) on 6 samples"),
        (lambda w, x: (x @ w).T, ModelError, r"shape \(3, 6\) on 6 samples; expected a leading"),
        (lambda w, x: jnp.zeros((6, 2)) + w[0, 0], ModelError, "not depend on the inputs"),
        (lambda w, x: (x @ w[:, :1]).squeeze(), ModelError, r"\(\) on 1; .*squeeze"),
        (lambda w, x: (x @ w).reshape(6, 3), ModelError, "works on 6 samples and fails on 1"),
        (lambda w, x: (x @ w)[:, :0], ModelError, "at least one output component"),
        (lambda w, x: jax.lax.complex(x @ w, x @ w), ComplexOutputError, "complex64.*stack"),
        (lambda w, x: jnp.argmax(x @ w, 1), ModelError, "dtype int32"),
        (lambda w, x: x @ w.T, ProbeError, r"probe 'probe' of shape \(6, 4\) float32: TypeError"),
        (lambda w, x: x["tokens"] @ w, ProbeError, "fails on the probe"),
        (lambda w, x: (x, x), ModelError, "without names"),
    ],
)
def test_models_that_do_not_fit_are_explained(function, error, message):
    with pytest.raises(error, match=message):
        check(function)


def test_a_squeeze_is_found_from_a_probe_of_one_sample_too():
    with pytest.raises(ModelError, match=r"shape \(\) on 1 samples"):
        check(lambda w, x: (x @ w[:, :1]).squeeze(), x=X[:1])
    with pytest.raises(ModelError, match="on 2"):
        check(lambda w, x: jnp.zeros((1, 3)) + jnp.sum(w), x=X[:1])


def test_the_original_error_is_the_cause():
    with pytest.raises(ProbeError) as caught:
        check(lambda w, x: x @ w.T)
    assert isinstance(caught.value.__cause__, TypeError)
    assert str(caught.value.__cause__) in str(caught.value)


def test_an_unknown_head_lists_those_there_are():
    with pytest.raises(HeadError, match="'value' was given; the model has 'a', 'b'"):
        check(lambda w, x: {"a": x @ w, "b": x @ w}, head="value")


def test_heads_are_settled_by_name():
    assert head_of({"output": 1}, None) == "output"
    assert head_of(("a", "b"), "b") == "b"
    with pytest.raises(HeadError, match="2 heads"):
        head_of(("a", "b"), None)
    with pytest.raises(HeadError, match="the model has 'a', 'b'"):
        head_of(("a", "b"), "output")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "no leaves"),
        ({"w": jnp.arange(3)}, "'w' is of type int32"),
        ({"w": jnp.ones(2, complex)}, "'w' is of type complex64"),
        ({"w": "text"}, "'w' is of type str"),
        ({"v": jnp.ones(2)}, "unknown leaves are v"),
    ],
)
def test_params_that_do_not_belong_are_refused(params, message):
    model = as_model(lambda p, x: x @ p["w"])
    _, state = model.split({"w": W})
    with pytest.raises(ParamsError, match=message):
        check_model(model, params, state, Probe(X))


def test_linen_says_which_parameter_is_missing():
    model = as_model(LinenMLP())
    params, state = model.split({"Dense_0": linen_state()["params"]["Dense_0"]})
    with pytest.raises(ParamsError, match=r"looks for a parameter .*Dense_1"):
        check_model(model, params, state, Probe(X))


@pytest.mark.parametrize(
    ("outputs", "message"), [(jnp.ones((6, 2)), "expected a non-empty dict"), ({}, "non-empty"),
                             ({"a": (jnp.ones(6),)}, "head 'a' of model is a tuple")]
)  # fmt: skip
def test_a_hand_made_model_must_name_its_outputs(outputs, message):
    model = Model(split=lambda obj: (obj, ()), apply=lambda params, state, x: outputs)
    with pytest.raises(ModelError, match=message):
        check_model(model, {"w": W}, (), Probe(X))


# --- interacting samples ----------------------------------------------------------------------


def batch_norm(w, x):
    h = x @ w
    return (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)


def training_mode_linen(variables, x):
    key = jax.random.key(0)
    return LinenBatchNorm().apply(
        variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )[0]


RING = np.roll(np.eye(6), 1, axis=1) + np.eye(6)


def zero_readout(params, x):
    return batch_norm(params["w"], x) @ params["readout"]


def odd_partner(h):
    return h.reshape(-1, 2, h.shape[-1])[:, ::-1].reshape(h.shape)


COUPLED = {
    "batch norm in training mode": (batch_norm, W, X),
    "linen batch norm in training mode": (training_mode_linen, LINEN_BN.build(), X),
    "softmax over the batch": (lambda w, x: jax.nn.softmax(x @ w, axis=0), W, X),
    "batch mean taken off": (lambda w, x: x @ w - jnp.mean(x @ w, 0, keepdims=True), W, X),
    "one graph, adjacency inside": (lambda w, x: RING @ x @ w, W, X),
    "one graph, adjacency in the inputs": (
        lambda w, x: x["adjacency"] @ x["features"] @ w,
        W,
        {"adjacency": RING, "features": X},
    ),
    "one graph of 40 nodes": (
        lambda w, x: x["adjacency"] @ x["features"] @ w,
        W,
        {"adjacency": np.roll(np.eye(40), 1, 1), "features": np.resize(X, (40, 4))},
    ),
    "sum over earlier samples": (lambda w, x: jnp.cumsum(x @ w, 0), W, X),
    "sum over later samples": (lambda w, x: jnp.cumsum((x @ w)[::-1], 0)[::-1], W, X),
    "two samples, only the second looks": (lambda w, x: jnp.cumsum(x @ w, 0), W, X[:2]),
    "partners side by side": (lambda w, x: (x @ w) * (1 + odd_partner(x @ w)), W, X),
    "partners half a batch apart": (lambda w, x: x @ w + jnp.roll(x @ w, x.shape[0] // 2, 0), W, X),
    "batch norm behind a readout of zeros": (
        zero_readout,
        {"w": W, "readout": jnp.zeros((3, 2))},
        X,
    ),
    "tokens normalised over the batch": (
        lambda w, x: jax.nn.one_hot(x, 7).sum(1)[:, :4] @ w - (x.sum(1) / x.sum())[:, None],
        W,
        TOKENS,
    ),
    "identical samples": (batch_norm, W, np.ones((6, 4), np.float32)),
    "bfloat16 batch norm": (
        batch_norm,
        W.astype(jnp.bfloat16),
        X.astype(jnp.bfloat16),
    ),
    "attention over the batch": (
        lambda w, x: jax.nn.softmax(x @ x.T / 2.0) @ x @ w,
        W,
        X,
    ),
}


@pytest.mark.parametrize("name", COUPLED)
def test_interacting_samples_are_found(name):
    function, params, x = COUPLED[name]
    with pytest.raises(CoupledSamplesError, match="coupled=True"):
        check(function, params, x)


@pytest.mark.parametrize("name", COUPLED)
def test_a_declared_interaction_is_accepted(name):
    function, params, x = COUPLED[name]
    n = jax.tree.leaves(x)[0].shape[0]
    assert check(function, params, x, coupled=True)["output"].shape[0] == n


def deep(width, dtype):
    keys = jax.random.split(jax.random.key(1), 4)
    shapes = [(4, width), (width, width), (width, width), (width, 3)]
    return [
        (jax.random.normal(k, s) * (2.0 / s[0]) ** 0.5).astype(dtype)
        for k, s in zip(keys, shapes, strict=True)
    ]


def relu_mlp(params, x):
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ params[-1]


def layer_norm(w, x):
    h = x @ w
    return (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-5)


def masked_pool(w, x):
    mask = x["mask"][..., None]
    return (x["values"] * mask).sum(1) @ w / jnp.maximum(mask.sum(1), 1)


def row_overflow(w, x):
    return jnp.exp(100 * (x @ w)) / jnp.exp(100 * (x @ w))


MANY = np.resize(X, (37, 4)) + np.linspace(0, 1, 37, dtype=np.float32)[:, None]

INDEPENDENT = {
    "layer norm": (layer_norm, W, X),
    "wide float32": (relu_mlp, deep(256, jnp.float32), MANY),
    "wide bfloat16": (relu_mlp, deep(256, jnp.bfloat16), MANY.astype(jnp.bfloat16)),
    "wide float16": (relu_mlp, deep(64, jnp.float16), MANY.astype(np.float16)),
    "bfloat16 inside, float32 outside": (
        lambda p, x: relu_mlp(p, x.astype(jnp.bfloat16)).astype(jnp.float32),
        deep(64, jnp.bfloat16),
        MANY,
    ),
    "padding masks": (
        masked_pool,
        W,
        {
            "values": np.resize(X, (6, 5, 4)),
            "mask": (np.arange(5) < np.arange(1, 7)[:, None]).astype(np.float32),
        },
    ),
    "boolean masks that leave nothing": (
        lambda w, x: jnp.where(x["mask"][:, None], x["values"] @ w, 0.0),
        W,
        {"values": X, "mask": np.array([True, False] * 3)},
    ),
    "not a number everywhere": (lambda w, x: jnp.log(-jnp.abs(x @ w)), W, X),
    "overflow in some samples": (row_overflow, W, X * 10),
    "largest float16": (layer_norm, W, np.sign(X).astype(np.float16) * np.float16(6e4)),
    "square roots of negatives": (lambda w, x: jnp.sqrt(x @ w), W, X),
    "zeros": (lambda w, x: 0.0 * (x @ w), W, X),
    "one sample": (batch_norm, W, X[:1]),
    "experts by softmax over experts": (
        lambda w, x: jax.nn.softmax(x @ w)[..., None] * x[:, None],
        W,
        X,
    ),
    "tokens": (lambda w, x: jax.nn.one_hot(x, 4).sum(1) @ w, W, np.array([[0, 1], [2, 3], [3, 3]])),
    "group norm": (
        lambda v, x: nn.GroupNorm(num_groups=2).apply(v, x),
        nn.GroupNorm(num_groups=2).init(jax.random.key(0), X),
        X,
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_samples_are_not_flagged(name):
    function, params, x = INDEPENDENT[name]
    n = jax.tree.leaves(x)[0].shape[0]
    assert check(function, params, x)["output"].shape[0] == n


def test_at_most_32_samples_are_evaluated():
    sizes = []

    def function(w, x):
        sizes.append(x.shape[0])
        return x @ w

    check(function, x=np.resize(X, (500, 4)))
    assert set(sizes) == {500, 1, 32}
    assert sizes.count(32) == 1


def test_the_message_names_head_and_sample():
    def last_sample_only(w, x):
        h = x @ w
        return {"a": h, "b": h.at[-1].add(h[:-1].sum(0))}

    with pytest.raises(CoupledSamplesError, match="head 'b' for sample 5 changed by"):
        check(last_sample_only)


def test_an_interaction_in_another_head_is_not_looked_at():
    def model(w, x):
        return {"a": x @ w, "b": x @ w - jnp.mean(x @ w)}

    assert list(check(model, head="a")) == ["a"]
    with pytest.raises(CoupledSamplesError, match="head 'b'"):
        check(model, head="b")


# --- purity -----------------------------------------------------------------------------------


def test_numbers_drawn_while_tracing_are_refused():
    rng = np.random.default_rng(0)
    model = as_model(lambda w, x: (x + rng.normal()) @ w)
    with pytest.raises(ModelError, match="another function each time it is traced"):
        check_model(model, *model.split(W), Probe(X))


def test_a_drawn_array_is_refused_too():
    rng = np.random.default_rng(0)
    model = as_model(lambda w, x: x @ (w * rng.normal(size=w.shape)))
    with pytest.raises(ModelError, match=r"numpy\.random"):
        check_model(model, *model.split(W), Probe(X))


def test_callbacks_in_the_forward_pass_are_refused():
    def writes(w, x):
        out = x @ w
        jax.experimental.io_callback(lambda _: None, None, out)
        return out

    model = as_model(writes)
    with pytest.raises(ModelError, match="side effects"):
        check_model(model, *model.split(W), Probe(X))


def test_printing_for_debugging_is_no_side_effect():
    def prints(w, x):
        jax.debug.print("{}", w[0, 0])
        return x @ w

    model = as_model(prints)
    assert list(check_model(model, *model.split(W), Probe(X))) == ["output"]
