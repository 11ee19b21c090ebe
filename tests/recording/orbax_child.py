"""A training that is going to be killed: ``python -m tests.recording.orbax_child FOLDER STEPS``.

Trains a TrainState on real data from the newest orbax checkpoint in the folder, saves one every
five updates together with what the recorder remembers, and prints each step once it is recorded.
"""

import sys
from pathlib import Path

import jax
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from flax.training.train_state import TrainState

import ntkstats as nts
from tests.collectors.systems import digits

X, Y = digits()
MODULE = nn.Sequential([nn.Dense(6), nn.tanh, nn.Dense(10)])


@jax.jit
def train_step(state, x, y):
    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def main(folder: Path, steps: int) -> None:
    """Train up to `steps` updates, from where the folder's checkpoints leave off."""
    params = MODULE.init(jax.random.key(0), X[:1])["params"]
    state = TrainState.create(apply_fn=MODULE.apply, params=params, tx=optax.adam(3e-3))
    probe = nts.Probe(X[-8:], Y[-8:])
    measure = [nts.collectors.kernel_velocity(), nts.collectors.param_norm()]
    recorder = nts.Recorder(
        folder / "run", MODULE, probe, measure, at=nts.RecordAt.every(3), resume=True
    )
    save, restore = ocp.args.StandardSave, ocp.args.StandardRestore
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        start = manager.latest_step() or 0
        if start:
            found = manager.restore(
                start, args=ocp.args.Composite(state=restore(state), recorder=restore())
            )
            state = found.state
            recorder.restore(found.recorder)
        for step in range(start, steps):
            recorder(step, state)
            if step % 5 == 0 and step > start:
                both = {"state": save(state), "recorder": save(recorder.state())}
                manager.save(step, args=ocp.args.Composite(**both))
            print(step, flush=True)
            rows = slice(16 * step % 1600, 16 * step % 1600 + 16)
            state = train_step(state, X[rows], Y[rows])
        recorder.finish(state)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
