"""Trainers with SwarmRL's interface are recorded from outside; so is the package where it is."""

import importlib.util

import jax
import numpy as np
import pytest

import ntkstats as nts
from tests.attach.swarm import EPISODES, EPOCHS, ActorCritic, own_trainer, real_trainer, train

X = np.random.default_rng(1).normal(size=(10, 2)).astype(np.float32)
MODEL = nts.as_model(ActorCritic(), heads=("actor", "critic"))
COLLECTORS = [nts.collectors.ntk_spectrum(), nts.collectors.param_distance()]
UPDATES = EPISODES * EPOCHS
TRAINERS = [
    own_trainer,
    pytest.param(
        real_trainer,
        marks=pytest.mark.skipif(
            importlib.util.find_spec("swarmrl") is None, reason="swarmrl is not installed"
        ),
    ),
]


def network_of(trainer):
    return trainer.agents["0"].network


def recorder_at(path, every):
    return nts.Recorder(path, MODEL, nts.Probe(X), COLLECTORS, at=nts.RecordAt.every(every))


@pytest.fixture(scope="module", params=TRAINERS, ids=["own", "swarmrl"])
def runs(request, tmp_path_factory):
    """A bare training whose parameters are kept by hand, and one that is recorded twice over."""
    folder = tmp_path_factory.mktemp("runs")
    bare = request.param()
    network, kept = network_of(bare), []
    original = network.update_model

    def keeping(grads):
        kept.append(jax.device_get(network.model_state.params))
        original(grads)

    network.update_model = keeping
    rewards = train(bare)
    kept.append(jax.device_get(network.model_state.params))

    trainer = request.param()
    with (
        nts.record_calls(
            network_of(trainer),
            "update_model",
            recorder_at(folder / "updates", 16),
            obj_of=lambda network: network.model_state,
        ),
        nts.record_calls(
            trainer,
            "update_rl",
            recorder_at(folder / "episodes", 4),
            obj_of=lambda trainer: network_of(trainer).model_state,
        ),
    ):
        recorded_rewards = train(trainer)
    assert "update_model" not in vars(network_of(trainer))
    assert "update_rl" not in vars(trainer)
    return folder, kept, rewards, recorded_rewards, trainer


def test_training_is_what_it_is_without(runs):
    _, kept, rewards, recorded_rewards, trainer = runs
    np.testing.assert_array_equal(rewards, recorded_rewards)
    jax.tree.map(np.testing.assert_array_equal, kept[-1], network_of(trainer).model_state.params)


def test_it_learns(runs):
    rewards = runs[2]
    assert rewards[-4:].mean() > rewards[0] + 0.3  # of at most 1, a walk straight to the source


def test_every_update_of_the_network_is_a_step(runs):
    folder, kept, *_ = runs
    assert len(kept) == UPDATES + 1
    check(nts.open_run(folder / "updates"), kept, [0, 16, 32, UPDATES], scale=1)


def test_every_call_of_the_trainer_is_a_step(runs):
    folder, kept, *_ = runs
    check(nts.open_run(folder / "episodes"), kept, [0, 4, 8, EPISODES], scale=EPOCHS)


def check(ds, kept, steps, scale):
    """Actor and critic kernels, apart, are those of the parameters kept by hand."""
    assert ds.attrs["status"] == "finished"
    assert not ds.attrs["failures"]
    assert ds.step.values.tolist() == steps
    for step in steps:
        params, state = MODEL.split(kept[scale * step])
        for head in ("actor", "critic"):
            kernel = nts.empirical_ntk(MODEL, params, state, X, head=head, outputs="trace")
            values = np.linalg.eigvalsh(kernel.matrix)[::-1]
            found = ds[f"eigenvalues_{head}"].sel(step=step).values
            np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-5 * values[0])
