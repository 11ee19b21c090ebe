"""Proximal policy optimisation with the kernels of actor and critic apart.

The kernels are those of the logits (``actor``) and of the value (``critic``), each on a frozen
probe of states along random actions, and on states that the policy visits now (fields that end in
``_on_policy``). A step is a rollout with all that is learnt from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax.training.train_state import TrainState

import ntkstats as nts
from ntkstats.typing import Array, PyTree
from studies._errors import StudyError
from studies._settings import setting
from studies.systems import ppo
from studies.systems._options import at_least, check_choices, positive
from studies.systems._train import Progress
from studies.systems.ppo import PPO


@dataclass(frozen=True)
class Reinforcement(PPO):
    """Settings. Two cores: as they are. One GPU: 64 environments, width 256, 50 seeds."""

    seeds: int = setting(4, "seeds, trained together as one program")
    probe: int = setting(64, "states on which the NTK is taken, frozen and on policy")
    records: int = setting(14, "records on the way, spaced logarithmically")
    outputs: Literal["auto", "trace", "sum", "probe"] = setting(
        "auto", "kernel of the outputs: auto, trace, sum or probe"
    )
    seed: int = setting(0, "decides probe, initialisations and episodes")

    @property
    def label(self) -> str:
        """Name of the task for people."""
        return type(self).__name__

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "seeds", "learning_rate")
        at_least(self, 2, "probe", "records", "updates")
        check_choices(self)
        if self.probe > self.envs * self.rollout:
            msg = f"probe={self.probe}; a rollout has {self.envs * self.rollout} states."
            raise StudyError(msg)


def train(config: Reinforcement, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds in one program and leave the recorded run at `path`.

    Raises
    ------
    DependencyError
        gymnax is not installed.
    StudyError
        It has no such environment.
    """
    module = ppo.network(config)
    probe_key, member_key = jax.random.split(jax.random.key(config.seed))
    keys = jax.random.split(member_key, config.seeds)
    states = np.asarray(ppo.random_states(config, probe_key, config.probe))
    frozen = nts.Probe(states, name="frozen")
    live = nts.Probe.from_extra("obs", states, name="on_policy")
    collectors = (
        nts.collectors.ntk_spectrum(config.outputs),
        nts.collectors.kernel_velocity(),
        nts.collectors.ntk_spectrum(config.outputs, probe="on_policy"),
    )
    model = nts.as_model(module)
    last = config.updates - 1
    at = nts.RecordAt.log(config.records, until=last) | nts.RecordAt.steps([last])
    with nts.Recorder(
        path,
        model,
        (frozen, live),
        collectors,
        config={"system": "reinforcement", **dataclasses.asdict(config)},
        seed=config.seed,
        members=config.seeds,
        strict=True,
    ) as recorder:
        example = module.init(jax.random.key(0), states)["params"]
        program = nts.collectors.bind(
            model, example, (frozen, live), collectors, extras={"obs": live.x}
        )
        watch = nts.watch(program, model, at, until=last)

        def visit(watched: PyTree, update: Array, state: TrainState, obs: Array) -> PyTree:
            return watch.measure_if(watched, update, state.params, obs=shown(obs, config.probe))

        run = jax.jit(jax.vmap(ppo.make_train(config, visit=visit, visited=watch.init())))
        if progress is not None:  # the device says nothing before it is done
            progress(0, config.updates)
        found: Any = jax.block_until_ready(run(keys))
        if progress is not None:
            progress(config.updates, config.updates)
        records, steps = watch.results(found.visited)
        rows = {**records, "episode_return": np.asarray(found.returns)[:, steps]}
        recorder.bind(found.state, obs=np.stack([states] * config.seeds))
        recorder.extend(rows, steps)


def shown(obs: Array, n: int) -> Array:
    """`n` of the states of a rollout ``(rollout, envs, ...)``, evenly spread over its time."""
    flat = obs.reshape(-1, *obs.shape[2:])
    return flat[:: len(flat) // n][:n]
