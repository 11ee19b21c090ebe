"""A swarm that learns to walk to a source, under trainers that own their loop.

The trainer, agent and network have the interface of SwarmRL (github.com/SwarmRL/SwarmRL): a trainer
with `update_rl`, agents with `update_agent`, networks with `update_model` and a flax TrainState as
`model_state`. Where that package is installed, `real_trainer` puts its own classes in their place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

WALKERS, EPISODE, EPISODES, EPOCHS, STEP = 8, 15, 12, 4, 0.1
WAYS = {"right": (1, 0), "up": (0, 1), "left": (-1, 0), "down": (0, -1)}


class ActorCritic(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.tanh(nn.Dense(24)(x))
        return nn.Dense(len(WAYS))(hidden), nn.Dense(1)(hidden)


def tx():
    return optax.adam(2e-2)


# --- the world: no learning in it -------------------------------------------------------------


@dataclass(frozen=True)
class Walker:
    pos: np.ndarray
    id: int
    type: int = 0


class Engine:
    """Puts the walkers somewhere and lets the agents move them, one episode a call."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.scatter()

    def scatter(self):
        self.colloids = [Walker(p, i) for i, p in enumerate(self.rng.normal(size=(WALKERS, 2)))]

    def integrate(self, n_slices, force_model):
        self.scatter()
        for _ in range(n_slices):
            actions = force_model.calc_action(self.colloids)
            self.colloids = [
                Walker(w.pos + STEP * np.asarray(a.new_direction), w.id)
                for w, a in zip(self.colloids, actions, strict=True)
            ]

    def finalize(self):
        pass


class ToTheSource:
    """Observable (where the walker is) and task (how much closer to the origin it came)."""

    kill_switch = False

    def initialize(self, colloids):
        self.before = self.compute_observable(colloids)

    def compute_observable(self, colloids):
        return np.stack([walker.pos for walker in colloids]).astype(np.float32)

    def __call__(self, colloids):
        now, before = self.compute_observable(colloids), self.before
        self.before = now
        closer = np.linalg.norm(before, axis=1) - np.linalg.norm(now, axis=1)
        # A walker that was put elsewhere did not walk there.
        walked = np.linalg.norm(now - before, axis=1) < 1.5 * STEP
        return np.where(walked, closer / STEP, 0.0).astype(np.float32)


# --- our own trainer --------------------------------------------------------------------------


class Network:
    def __init__(self, seed):
        module = ActorCritic()
        params = module.init(jax.random.key(seed), jnp.ones(2))["params"]
        self.model_state = TrainState.create(apply_fn=module.apply, params=params, tx=tx())
        self.key = jax.random.key(seed + 1)

    def compute_action(self, observables):
        self.key, key = jax.random.split(self.key)
        return choose(self.model_state, observables, key)

    def update_model(self, grads):
        self.model_state = self.model_state.apply_gradients(grads=grads)


@jax.jit
def choose(state, x, key):
    logits, _ = state.apply_fn({"params": state.params}, x)
    chosen = jax.random.categorical(key, logits)
    return chosen, jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], 1)[:, 0]


@jax.jit
def loss_gradient(state, x, chosen, rewards):
    def loss(params):
        logits, values = state.apply_fn({"params": params}, x)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[..., None], -1)[..., 0]
        # A reward is seen one call after the action that earned it.
        soon = jnp.concatenate([rewards[1:] + 0.5 * rewards[2:].sum(0) / EPISODE, rewards[-1:]])
        advantage = soon - values[..., 0]
        return -(log_p * jax.lax.stop_gradient(advantage)).mean() + (advantage**2).mean()

    return jax.grad(loss)(state.params)


@dataclass
class Agent:
    network: Network
    task: ToTheSource = field(default_factory=ToTheSource)
    particle_type: int = 0
    kill_switch: bool = False

    def __post_init__(self):
        self.features, self.actions, self.rewards = [], [], []

    def reset_agent(self, colloids):
        self.task.initialize(colloids)

    def calc_action(self, colloids):
        x = self.task.compute_observable(colloids)
        chosen, _ = self.network.compute_action(x)
        self.features.append(x)
        self.actions.append(chosen)
        self.rewards.append(self.task(colloids))
        return [SimpleNamespace(new_direction=list(WAYS.values())[int(i)]) for i in chosen]

    def update_agent(self):
        rewards = self.rewards
        data = [np.stack(parts) for parts in (self.features, self.actions, self.rewards)]
        for _ in range(EPOCHS):
            self.network.update_model(loss_gradient(self.network.model_state, *data))
        self.__post_init__()
        return rewards, False


class Trainer:
    def __init__(self, agents):
        self.agents = {str(agent.particle_type): agent for agent in agents}

    def update_rl(self):
        reward = 0.0
        for agent in self.agents.values():
            rewards, _ = agent.update_agent()
            reward += np.mean(rewards)
        return self.agents["0"], np.array(reward), False

    def perform_rl_training(self, engine, n_episodes, episode_length):
        for agent in self.agents.values():
            agent.reset_agent(engine.colloids)
        rewards, force = [], self.agents["0"]
        for _ in range(n_episodes):
            engine.integrate(episode_length, force)
            force, reward, _ = self.update_rl()
            rewards.append(reward)
        return np.array(rewards)


def own_trainer(seed=0):
    return Trainer([Agent(Network(seed))])


# --- the classes of the package ---------------------------------------------------------------


def real_trainer(seed=0):
    import swarmrl as srl
    from swarmrl.actions import Action
    from swarmrl.agents import ActorCriticAgent
    from swarmrl.losses import ProximalPolicyLoss
    from swarmrl.networks import FlaxModel
    from swarmrl.trainers import ContinuousTrainer

    task = ToTheSource()
    return ContinuousTrainer(
        [
            ActorCriticAgent(
                particle_type=0,
                network=FlaxModel(ActorCritic(), input_shape=(2,), optimizer=tx(), rng_key=seed),
                task=task,
                observable=task,
                actions={name: Action(new_direction=way) for name, way in WAYS.items()},
                loss=ProximalPolicyLoss(
                    n_epochs=EPOCHS,
                    sampling_strategy=srl.sampling_strategies.GumbelDistribution(),
                    entropy_coefficient=0.0,
                ),
            )
        ]
    )


def train(trainer, episodes=EPISODES):
    """The user's line; rewards of the episodes."""
    hidden = {} if isinstance(trainer, Trainer) else {"load_bar": False}
    return trainer.perform_rl_training(Engine(), episodes, EPISODE, **hidden)
