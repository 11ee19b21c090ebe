"""A trainer whose method is wrapped."""

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import ntkstats as nts

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
MODULE = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(10)])
PROBE = nts.Probe(X[-8:], Y[-8:])
BATCHES = [slice(64 * i, 64 * i + 64) for i in range(6)]


class Trainer:
    """The simplest object that owns its loop."""

    def __init__(self):
        params = MODULE.init(jax.random.key(0), X[:1])["params"]
        self.state = TrainState.create(apply_fn=MODULE.apply, params=params, tx=optax.adam(1e-2))
        self.log = []

    def fit(self, batches=BATCHES):
        for batch in batches:
            self.log.append(self.train_step(batch))
        return self.log

    def train_step(self, batch, *, scale=1.0):
        """One update."""
        if batch is None:
            msg = "the data are gone"
            raise OSError(msg)
        self.state, value = updated(self.state, X[batch], Y[batch], scale)
        return value

    def predict(self, x):
        return MODULE.apply({"params": self.state.params}, x)


@jax.jit
def updated(state, x, y, scale):
    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return scale * optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), value


def state_of(trainer):
    return trainer.state


def recorder_at(path, measure=None, *, at=None, probe=PROBE, **options):
    measure = nts.collectors.param_norm() if measure is None else measure
    at = nts.RecordAt.every(2) if at is None else at
    return nts.Recorder(path, nts.as_model(MODULE), probe, measure, at=at, **options)


def wrapped(trainer, recorder, method="train_step", **options):
    return nts.record_calls(trainer, method, recorder, **{"obj_of": state_of, **options})
