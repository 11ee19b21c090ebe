"""Real runs of a tiny flax network, recorded once, and the command line as a function."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import ntkstats as nts
from ntkstats import collectors

X = jax.random.normal(jax.random.key(1), (8, 4))
Y = jnp.argmax(X[:, :3], axis=1)
MODULE = nn.Sequential([nn.Dense(6), nn.tanh, nn.Dense(3)])


def loss(logits, labels):
    """Cross entropy of each sample."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@jax.jit
def update(params, rate):
    """One step of gradient descent."""
    grads = jax.grad(lambda p: loss(MODULE.apply(p, X), Y).mean())(params)
    return jax.tree.map(lambda a, g: a - rate * g, params, grads)


def train(path: Path, *, rate: float, seed: int = 0, steps: int = 6) -> None:
    """Train and record every second step, and one collector at every third."""
    params = MODULE.init(jax.random.key(seed), X[:1])
    measure = [collectors.ntk_spectrum(), collectors.loss(loss, at=nts.RecordAt.every(3))]
    with nts.Recorder(
        path,
        nts.as_model(MODULE),
        nts.Probe(X, Y),
        measure,
        at=nts.RecordAt.every(2, until=steps),
        config={"rate": rate},
        seed=seed,
    ) as recorder:
        for step in range(steps):
            recorder(step, params, rate=rate)
            params = update(params, rate)
        recorder.finish(params, rate=rate)


def environment() -> dict[str, str]:
    """Of a child process that imports the same packages and owns no accelerator."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}


def command(*words: object) -> subprocess.CompletedProcess:
    """``python -m ntkstats`` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "ntkstats", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=120,
    )
