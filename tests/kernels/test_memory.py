"""Peak resident memory of kernels, each in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.models import as_model
from studies.benchmarks._memory import peak_bytes

MB = 10**6
RNG = np.random.default_rng(0)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's"),
]


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.relu(nn.Dense(512)(x))
        return nn.Dense(10)(x)


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        for channels, stride in ((32, 1), (64, 2), (64, 2)):
            x = nn.relu(nn.Conv(channels, (3, 3), (stride, stride))(x))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(100, 64)(tokens)
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            x = x + nn.Dense(64)(nn.gelu(nn.Dense(256)(nn.LayerNorm()(x))))
        return nn.Dense(10)(x.mean(1))


NETWORKS = {
    "mlp": (MLP, lambda: RNG.normal(size=(16, 784)).astype(np.float32)),
    "cnn": (CNN, lambda: RNG.normal(size=(64, 28, 28, 1)).astype(np.float32)),
    "transformer": (Transformer, lambda: RNG.integers(0, 100, (64, 64))),
}


def prepare(name: str, outputs: str, budget: int) -> Callable[[], Any]:
    """The compiled kernel, which needs several tiles."""
    module, inputs = NETWORKS[name]
    x = jax.device_put(inputs())
    model = as_model(module())
    params, state = model.split(jax.jit(module().init)(jax.random.key(0), x[:1]))
    plan = kernels.plan(
        model,
        params,
        state,
        x,
        outputs=outputs,
        budget_bytes=budget,
        key=jax.random.key(1),
        checked=True,
    )
    assert plan.tiling is not None
    assert plan.tiling.samples < len(x)
    compiled = jax.jit(lambda p, s, x: plan.gram(p, s, x)).lower(params, state, x).compile()
    return partial(compiled, params, state, x)


# Resident memory is a property of a whole machine: not for the fast suite.
# Convolutions on CPU keep up to about 100 MB of their own, whatever the budget.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "outputs", "budget"),
    [
        ("mlp", "full", 100 * MB),
        ("mlp", "trace", 300 * MB),
        ("cnn", "trace", 250 * MB),
        ("cnn", "full", 400 * MB),
        ("transformer", "full", 100 * MB),
        ("transformer", "probe", 200 * MB),
    ],
)
def test_peak_memory_stays_within_the_budget(name, outputs, budget):
    peak = peak_bytes(partial(prepare, name, outputs, budget))
    assert 0.3 * budget < peak < 1.3 * budget


def allocate(count: int) -> Callable[[], Any]:
    """A call that touches that many bytes."""
    return partial(np.ones, count, np.uint8)


def test_peak_memory_of_a_known_allocation_is_measured():
    for size in (50 * MB, 200 * MB):
        assert size <= peak_bytes(partial(allocate, size)) < 1.1 * size + 5 * MB
