"""One process of a data-parallel training: ``python -m ... RANK COUNT PORT PATH``."""

import sys

import jax

if __name__ == "__main__":
    rank, count, port = sys.argv[1:4]
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(rank))

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import ntkstats as nts
from ntkstats.recording import RecordAt, Recorder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype(np.float32)
Y = np.sin(X[:, :1])


def apply(params, x):
    """Two layers."""
    return jnp.tanh(x @ params["a"]) @ params["b"]


def initial():
    """The same parameters everywhere."""
    a, b = jax.random.split(jax.random.key(0))
    return {"a": jax.random.normal(a, (5, 7)), "b": jax.random.normal(b, (7, 1))}


@jax.jit
def update(params, x, y):
    """One step of gradient descent on the whole batch."""
    loss, grads = jax.value_and_grad(lambda p: jnp.mean((apply(p, x) - y) ** 2))(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss


def train(path, x, y, params):
    """Ten steps, every third recorded."""
    what = [nts.collectors.ntk_spectrum(), nts.collectors.kernel_velocity()]
    recorder = Recorder(path, nts.as_model(apply), nts.Probe(X[:9]), what, at=RecordAt.every(3))
    for step in range(10):
        new, loss = update(params, x, y)
        recorder(step, params, train_loss=loss)
        params = new
    return recorder.finish(params)


def main(path):
    """The batch spread over the processes, the parameters the same on each."""
    mesh = Mesh(jax.devices(), "batch")
    spread, same = (NamedSharding(mesh, PartitionSpec(*p)) for p in (("batch",), ()))

    def place(array, sharding):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda at: array[at])

    params = jax.tree.map(lambda leaf: place(leaf, same), initial())
    report = train(path, place(X, spread), place(Y, spread), params)
    print(jax.process_index(), report.path is not None, *report[1:], flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[4])
