"""A training that is interrupted, restored from a checkpoint and continued."""

from functools import cache

import jax
import jax.numpy as jnp
import optax
import pytest

import ntkstats as nts
from ntkstats import collectors
from ntkstats.errors import RecordingWarning
from tests.collectors.systems import digits, mlp, mlp_params

X, Y = digits()
PROBE = nts.Probe(X[:8], Y[:8])
MODEL = nts.as_model(mlp)
TX = optax.adam(3e-3)
STEPS = 22
CONFIG = {"width": 6, "rate": 3e-3}


def draws(name="draws"):
    """A collector that remembers a typed key, an empty array and a number of calls."""

    def init(binding, head, key):
        return {"key": key, "count": jnp.zeros((), jnp.int32), "nothing": jnp.zeros((0, 3))}

    def measure(moment, carry):
        key, now = jax.random.split(carry["key"])
        leaf = jax.tree.leaves(moment.snapshot.params)[0]
        value = jnp.vdot(jax.random.normal(now, leaf.shape), leaf)
        return carry | {"key": key, "count": carry["count"] + 1}, {"draw": value}

    labels = {"draw": collectors.Label("random projection")}
    return collectors.Collector(name, measure, lambda b, h: labels, init=init, uses_head=False)


def measured():
    return [
        collectors.kernel_velocity(),
        collectors.param_distance(at=nts.RecordAt.every(3)),
        draws(),
    ]


@jax.jit
def update(params, opt_state, step):
    start = 10 * step % 1000
    x, y = (jax.lax.dynamic_slice_in_dim(jnp.asarray(a), start, 10) for a in (X, Y))

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(mlp(params, x), y).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, opt_state = TX.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, value


def recorder_at(path, **options):
    given = {"collectors": measured(), "at": nts.RecordAt.every(4), "config": CONFIG, **options}
    return nts.Recorder(path, MODEL, PROBE, resume=True, **given)


def attempt(path, until, checkpoint=None, *, save_at=(), before_the_call=True, options=None):
    """Train from a checkpoint (or the start) until killed or done; the checkpoints by step."""
    start, params, opt_state, remembered = checkpoint or (0, *fresh(), None)
    recorder = recorder_at(path, **(options or {}))
    if remembered is not None:
        recorder.restore(remembered)
    saved = {}
    for step in range(start, until):
        if step in save_at and before_the_call and step > start:
            saved[step] = (step, params, opt_state, recorder.state())
        recorder(step, params)
        if step in save_at and not before_the_call:
            saved[step] = (step, params, opt_state, recorder.state())
        params, opt_state, _ = update(params, opt_state, step)
    if until == STEPS:
        recorder.finish(params)
    else:
        recorder.close()  # a kill leaves the same rows, see test_crash.py
    return saved


@cache
def fresh():
    params = mlp_params(0, (64, 6, 10))
    return params, TX.init(params)


def gap_warning(text):
    return pytest.warns(RecordingWarning, match=text)
