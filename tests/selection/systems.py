"""Real pools on which selectors are tested, and one of each selector."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_diabetes, load_digits

from ntkstats import selection as sel

KEY = jax.random.key(3)
N, PICKS = 16, 6


def init(key):
    k1, k2 = jax.random.split(key)
    return jax.random.normal(k1, (10, 16)) / 3, jax.random.normal(k2, (16, 3)) / 4


def apply(params, x):
    return jnp.tanh(x @ params[0]) @ params[1]


RND = sel.RND(init, apply, optimizer=optax.adam(1e-2), max_steps=60, check_every=20)

SELECTORS = {
    "random": sel.Random(),
    "stratified": sel.Stratified(),
    "max_norm": sel.MaxNorm(),
    "max_norm_inputs": sel.MaxNorm(of="inputs"),
    "rnd": RND,
    "rnd_limit": sel.RNDLimit(),
    "rnd_limit_noisy": sel.RNDLimit(noise_dof=8),
    "maxdet": sel.MaxDet(),
    "maxdet_randomised": sel.MaxDet(randomised=True),
    "mean_variance": sel.MeanVariance(),
    "renyi2": sel.MaxRenyi2(),
    "entropy": sel.MaxEntropy(),
    "farthest": sel.FarthestPoint(),
    "farthest_random": sel.FarthestPoint(first="random"),
    "lcmd": sel.LCMD(),
    "kmeanspp": sel.KMeansPP(),
    "kmedoids": sel.KMedoids(),
    "facility": sel.FacilityLocation(),
    "herding": sel.KernelHerding(),
    "herding_warm": sel.KernelHerding(temperature=0.1),
    "el2n": sel.EL2N(init, apply, steps=5, batch_size=4, members=2),
    "grad_norm": sel.GradNorm(init, apply, members=2),
    "clusters": sel.ClusterStratified(),
    "per_class": sel.PerClass(sel.MaxDet()),
    "by_batch": sel.ByBatch(sel.MaxDet(), size=3),
}


@cache
def table():
    """Diabetes progression: (442, 10) standardised variables and the target."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x = (x - x.mean(0)) / x.std(0)
    return x.astype(np.float32), y


@cache
def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int32)


def rbf(x, y=None, width=3.0):
    y = x if y is None else y
    squared = ((x[:, None] - y[None]) ** 2).sum(-1)
    return np.exp(-squared / (2 * width**2))


def pool(n=N, rows=None):
    """Everything that any selector asks for."""
    x, y = table()
    rows = np.arange(n) if rows is None else np.asarray(rows)
    x, y = x[rows], y[rows]
    kernel = rbf(x.astype(np.float64)) * (1 + (x[:, :1] @ x[:, :1].T).astype(np.float64))
    prior = rbf(x.astype(np.float64), width=2.0) * (1 + (x[:, 2:3] @ x[:, 2:3].T))
    return sel.Pool(
        x=jnp.asarray(x),
        y=jnp.asarray((y > 120).astype(np.int32)),
        kernel=sel.dense(kernel.astype(np.float32)),
        prior=sel.dense(prior.astype(np.float32)),
        clusters=jnp.asarray((np.arange(rows.size) * 3) // rows.size),
    )


def matrices(pool):
    """Kernel and prior in float64."""
    return (np.asarray(k.matrix, np.float64) for k in (pool.kernel, pool.prior))


def picks(selector, pool, k, key=KEY, **options):
    return np.asarray(sel.select(selector, key, pool, k, **options).indices)
