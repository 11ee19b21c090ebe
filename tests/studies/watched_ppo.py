"""PPO that is watched for a few updates."""

from __future__ import annotations

import jax
import numpy as np

import ntkstats as nts
from studies.systems import ppo
from studies.systems.ppo import PPO

SHORT = PPO(updates=5, envs=4, rollout=16, epochs=2, minibatches=2, width=16)
AT = nts.RecordAt.every(2)
DUE = [0, 2, 4]
SEEDS = jax.random.split(jax.random.key(0), 4)
MODEL = nts.as_model(ppo.network(SHORT))
FROZEN = nts.Probe(np.asarray(ppo.random_states(SHORT, jax.random.key(1), 12)))
LIVE = nts.Probe.from_extra("obs", FROZEN.x)
SPECTRA = [nts.collectors.ntk_spectrum(), nts.collectors.ntk_spectrum(probe="on_policy")]


def shown(obs):
    """As many of the states of a rollout as the probe has."""
    return obs.reshape(-1, obs.shape[-1])[:: SHORT.envs * SHORT.rollout // 12][:12]


def make_watch(collectors, probes=(FROZEN, LIVE)):
    params = ppo.network(SHORT).init(jax.random.key(0), FROZEN.x)["params"]
    program = nts.collectors.bind(MODEL, params, probes, collectors, extras={"obs": FROZEN.x})
    return nts.watch(program, MODEL, AT, until=SHORT.updates - 1)


def measuring(watch):
    def visit(watched, update, state, obs):
        return watch.measure_if(watched, update, state.params, obs=shown(obs))

    return ppo.make_train(SHORT, visit=visit, visited=watch.init())
