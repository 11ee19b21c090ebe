"""A small training that is watched."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import ntkstats as nts

STEPS = 12
AT = nts.RecordAt.every(5)
DUE = [0, 5, 10]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 64)
PROBE = nts.Probe(X[:8], Y[:8])
MODULE = nn.Sequential([nn.Dense(7), nn.tanh, nn.Dense(3)])
MODEL = nts.as_model(MODULE)
COLLECTORS = [nts.collectors.ntk_spectrum(), nts.collectors.param_distance()]


def loss_of(params, i):
    logits = MODULE.apply({"params": params}, jax.lax.dynamic_slice_in_dim(X, 5 * i, 5))
    labels = jax.lax.dynamic_slice_in_dim(Y, 5 * i, 5)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def start(key):
    return MODULE.init(key, X[:1])["params"]


def trained(params, i):
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss_of)(params, i))


def make_watch(**options):
    program = nts.collectors.bind(MODEL, start(jax.random.key(0)), PROBE, COLLECTORS, **options)
    return nts.watch(program, MODEL, AT, until=STEPS)


def scanned(watch, key):
    """Training in one scan; the parameters at the end and the records."""

    def step(carry, i):
        params, watched = carry
        watched = watch.measure_if(watched, i, params)
        return (trained(params, i), watched), None

    return jax.lax.scan(step, (start(key), watch.init()), jnp.arange(STEPS))[0]


def outside(key):
    """The same records from the program, step by step."""
    program = make_watch().program
    params, carry, records = start(key), program.init(jax.random.key(0)), []
    for i in range(STEPS):
        if i in DUE:
            snapshot = nts.collectors.Snapshot(i, *MODEL.split(params), {})
            carry, record = program.jitted(carry, snapshot)
            records.append(record)
        params = jax.jit(trained)(params, i)
    return {name: np.stack([r[name] for r in records]) for name in records[0]}, params


def check_equal(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=2e-5 * scale, err_msg=name)
