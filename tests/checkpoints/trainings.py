"""One training: networks held in four ways, saved in many, and scanned."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import safetensors.numpy
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

import ntkstats as nts
from tests.collectors.systems import digits

X, Y = digits()
PROBE = nts.Probe(X[-8:], Y[-8:])
TX = optax.adam(1e-2)
SAVED = (0, 2, 4, 8)


def measured():
    return [nts.collectors.kernel_velocity(), nts.collectors.param_norm()]


def loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batch(step):
    return X[16 * step : 16 * step + 16], Y[16 * step : 16 * step + 16]


# --- four ways to hold a network; each gives the states of one training by step ----------------


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.tanh(nn.Dense(6)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(10)(x)


class State(TrainState):
    batch_stats: dict


def linen_states():
    module = Linen()
    variables = module.init(jax.random.key(0), X[:1])
    state = State.create(apply_fn=module.apply, tx=TX, **variables)

    @jax.jit
    def train_step(state, x, y):
        def of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, new = module.apply(variables, x, train=True, mutable="batch_stats")
            return loss(logits, y), new["batch_stats"]

        grads, stats = jax.grad(of, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, batch_stats=stats)

    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = state
        state = train_step(state, *batch(step))
    return module, states


class Net(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(64, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.outer = nnx.Linear(6, 10, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.drop(jnp.tanh(self.norm(self.inner(x)))))


def nnx_states():
    net = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, TX, wrt=nnx.Param)

    @nnx.jit
    def train_step(net, optimizer, x, y):
        optimizer.update(net, nnx.grad(lambda net: loss(net(x), y))(net))

    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = nnx.clone(net)
        train_step(net, optimizer, *batch(step))
    return Net(nnx.Rngs(1)), states


def eqx_states():
    net = eqx.nn.MLP(64, 10, 6, depth=1, key=jax.random.key(0))
    state = TX.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(net, state, x, y):
        grads = eqx.filter_grad(lambda net: loss(jax.vmap(net)(x), y))(net)
        updates, state = TX.update(grads, state)
        return eqx.apply_updates(net, updates), state

    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = net
        net, state = train_step(net, state, *batch(step))
    return eqx.nn.MLP(64, 10, 6, depth=1, key=jax.random.key(1)), states


def plain(params, x):
    for w, b in params["layers"]:
        x = jnp.tanh(x @ w + b)
    return x @ params["head"]


def plain_states():
    keys = jax.random.split(jax.random.key(0))
    params = {
        "layers": [(jax.random.normal(keys[0], (64, 6)) / 8, jnp.zeros(6))],
        "head": jax.random.normal(keys[1], (6, 10)) / 3,
    }
    grad = jax.jit(jax.grad(lambda p, x, y: loss(plain(p, x), y)))
    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = params
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad(params, *batch(step)))
    return plain, states


KINDS = {"linen": linen_states, "nnx": nnx_states, "equinox": eqx_states, "plain": plain_states}


@cache
def trained(kind):
    return KINDS[kind]()


def assert_same(path, live, steps=SAVED):
    ds = nts.open_run(path)
    assert ds.step.values.tolist() == list(steps)
    assert set(ds.data_vars) == set(live.data_vars)
    for name in live.data_vars:
        np.testing.assert_array_equal(ds[name], live[name].sel(step=list(steps)), err_msg=name)
    return ds


def tree_of(state):
    """What people save: the arrays as a pytree of plain containers."""
    if isinstance(state, State):
        return {"params": state.params, "batch_stats": state.batch_stats}
    if isinstance(state, nnx.Module):
        return nnx.to_pure_dict(nnx.state(state, nnx.Not(nnx.RngState)))
    if isinstance(state, eqx.Module):
        return eqx.filter(state, eqx.is_array)
    return state


def flat_of(state, separator):
    leaves = jax.tree_util.tree_leaves_with_path(tree_of(state))
    return {
        jax.tree_util.keystr(p, simple=True, separator=separator): np.asarray(leaf)
        for p, leaf in leaves
    }


# --- ways to save a state -----------------------------------------------------------------------


def save_manager(states, folder):
    with ocp.CheckpointManager(folder) as manager:
        for step in SAVED:
            state = states[step]
            tree = nnx.state(state) if isinstance(state, nnx.Module) else tree_of(state)
            if isinstance(state, State):
                tree = state  # the whole of it, with the optimiser's state
            manager.save(step, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()


def save_single(states, folder):
    folder.mkdir()
    with ocp.StandardCheckpointer() as checkpointer:
        for step in SAVED:
            checkpointer.save(folder / f"net-v2_step_{step:04d}", tree_of(states[step]))
        checkpointer.wait_until_finished()


def save_safetensors(states, folder):
    folder.mkdir()
    for step in SAVED:
        flat = flat_of(states[step], ".")
        safetensors.numpy.save_file(flat, folder / f"step-{step}.safetensors")


def save_npz(states, folder):
    folder.mkdir()
    for step in SAVED:
        np.savez(folder / f"model_{step:06d}.npz", **flat_of(states[step], "/"))


FORMATS = {
    "manager": save_manager,
    "single": save_single,
    "safetensors": save_safetensors,
    "npz": save_npz,
}


def like_of(kind, form):
    _, states = trained(kind)
    if kind == "linen" and form == "manager":
        return states[0]
    return tree_of(states[0]) if kind == "linen" else None


def scan(tmp_path, checkpoints, kind="plain", measure=None, path="run", **options):
    model, _ = trained(kind)
    measure = measured() if measure is None else measure
    return nts.scan_checkpoints(model, checkpoints, PROBE, measure, tmp_path / path, **options)
