"""Proximal policy optimisation on a gymnax environment: the whole training is one pure function.

Everything runs on the device, so ``jax.jit(jax.vmap(train))`` trains many seeds as one program.
The clipped surrogate loss (Schulman et al., 2017), generalised advantage estimation (Schulman et
al., 2016); an episode that ran out of time is bootstrapped from the state that it
ended in, since it did not end there by itself (Pardo et al., 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from ntkstats.errors import DependencyError
from ntkstats.typing import Array, PyTree
from studies._errors import StudyError
from studies._settings import setting

Visit = Callable[[PyTree, Array, TrainState, Array], PyTree]


@dataclass(frozen=True)
class PPO:
    """Settings of the algorithm."""

    env: str = setting("CartPole-v1", "gymnax environment with discrete actions")
    updates: int = setting(80, "how often a rollout is made and learnt from")
    envs: int = setting(8, "environments side by side")
    rollout: int = setting(128, "steps in each environment a rollout")
    epochs: int = setting(4, "passes over a rollout")
    minibatches: int = setting(4, "updates of the parameters a pass")
    width: int = setting(64, "units of both hidden layers")
    shared_trunk: bool = setting(False, "whether actor and critic have these layers in common")
    learning_rate: float = setting(2e-3, "step size of Adam")
    max_gradient: float = setting(0.5, "norm to which gradients are clipped")
    discount: float = setting(0.99, "discount of rewards")
    trace_decay: float = setting(0.95, "lambda of the advantages")
    clip: float = setting(0.2, "clipping of the ratio of probabilities")
    value_weight: float = setting(0.5, "weight of the critic's loss")
    entropy_weight: float = setting(0.01, "weight of the policy's entropy")
    reward_scale: float = setting(0.1, "factor of rewards; large values would saturate the critic")

    def __post_init__(self) -> None:
        for name in ("updates", "envs", "rollout", "epochs", "minibatches", "width"):
            if getattr(self, name) < 1:
                msg = f"{name}={getattr(self, name)}; expected at least 1."
                raise StudyError(msg)
        if (self.envs * self.rollout) % self.minibatches:
            msg = (
                f"envs={self.envs} times rollout={self.rollout} steps cannot be cut into "
                f"minibatches={self.minibatches} of one size; choose a divisor."
            )
            raise StudyError(msg)

    @property
    def updates_per_rollout(self) -> int:
        """Updates of the parameters for each rollout: ``updates_per_step`` of `as_optax`."""
        return self.epochs * self.minibatches


class ActorCritic(nn.Module):
    """Two tanh layers, in common or not, and a head each for logits and value.

    The policy starts almost uniform.
    """

    actions: int
    width: int
    shared_trunk: bool

    @nn.compact
    def __call__(self, x: Array) -> Mapping[str, Array]:
        """``{"actor": logits (N, actions), "critic": values (N,)}`` of observations (N, d)."""

        def trunk(name: str) -> Array:
            hidden = x
            for i in (1, 2):
                layer = nn.Dense(self.width, kernel_init=_normal(2**0.5), name=f"{name}_{i}")
                hidden = nn.tanh(layer(hidden))
            return hidden

        if self.shared_trunk:
            for_actor = for_critic = trunk("trunk")
        else:
            for_actor, for_critic = trunk("actor_trunk"), trunk("critic_trunk")
        logits = nn.Dense(self.actions, kernel_init=_normal(0.01), name="actor")(for_actor)
        value = nn.Dense(1, kernel_init=_normal(1.0), name="critic")(for_critic)
        return {"actor": logits, "critic": value[..., 0]}


class Transition(NamedTuple):
    """Steps of a rollout; leaves ``(rollout, envs, ...)``.

    Attributes
    ----------
    obs, action, log_prob, value
        What the policy saw, chose and thought of it.
    reward, terminated, done
        ``done`` also where the time ran out.
    next_value
        Value of the state that the step led to, before any reset.
    episode_return, episode_known
        Return of the last episode that ended in this environment, and whether there is one.
    """

    obs: Array
    action: Array
    log_prob: Array
    value: Array
    reward: Array
    terminated: Array
    done: Array
    next_value: Array
    episode_return: Array
    episode_known: Array


class Trained(NamedTuple):
    """What a training gives.

    Attributes
    ----------
    state
        Parameters and optimiser at the end.
    returns
        ``(updates,)`` undiscounted return of the last episode of each environment, averaged; NaN
        before the first has ended.
    obs
        ``(envs * rollout, ...)`` observations of the last rollout.
    visited
        What `visit` carried along.
    """

    state: TrainState
    returns: Array
    obs: Array
    visited: PyTree


def environment(name: str) -> tuple[Any, Any]:
    """A gymnax environment that keeps returns of episodes, and its parameters.

    Raises
    ------
    DependencyError
        gymnax is not installed.
    StudyError
        It has no environment of that name.
    """
    try:
        import gymnax
        from gymnax.wrappers.purerl import LogWrapper
    except ImportError as error:
        msg = 'The environments come with gymnax; install it with: pip install "ntkstats[studies]"'
        raise DependencyError(msg) from error
    if name not in gymnax.registered_envs:
        msg = f"env={name!r}; expected one of {', '.join(gymnax.registered_envs)}."
        raise StudyError(msg)
    env, params = gymnax.make(name)
    return LogWrapper(env), params


def network(config: PPO) -> ActorCritic:
    """The network for an environment; its heads are ``"actor"`` and ``"critic"``."""
    env, params = environment(config.env)
    return ActorCritic(env.action_space(params).n, config.width, config.shared_trunk)


def optimiser(config: PPO) -> optax.GradientTransformation:
    """Adam on clipped gradients."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient),
        optax.adam(config.learning_rate, eps=1e-5),
    )


def random_states(config: PPO, key: Array, n: int) -> Array:
    """``(n, ...)`` observations along random actions: a frozen probe that no policy chose."""
    env, params = environment(config.env)
    space = env.action_space(params)

    def step(carry: tuple[Array, Any], key: Array) -> tuple[tuple[Array, Any], Array]:
        obs, state = carry
        keys = jax.random.split(key)
        after, state, *_ = env.step(keys[0], state, space.sample(keys[1]), params)
        return (after, state), obs

    keys = jax.random.split(key, n + 1)
    return jax.lax.scan(step, env.reset(keys[0], params), keys[1:])[1]


def make_train(
    config: PPO,
    *,
    tx: optax.GradientTransformation | None = None,
    visit: Visit | None = None,
    visited: PyTree = None,
) -> Callable[[Array], Trained]:
    """The training as a pure function of a PRNG key, to be jitted and vmapped.

    Parameters
    ----------
    config
        Settings.
    tx
        Another optimiser, e.g. with ``nts.as_optax(watch, updates_per_step=...)`` in its chain.
    visit
        ``visit(visited, update, state, obs) -> visited``, called in each update between rollout
        and learning: ``state`` made the rollout ``obs`` (rollout, envs, ...). This is where
        ``watch.measure_if`` goes.
    visited
        What `visit` starts with.

    Returns
    -------
    callable
        ``train(key) -> Trained``.
    """
    env, env_params = environment(config.env)
    module = network(config)
    tx = optimiser(config) if tx is None else tx
    reset = jax.vmap(env.reset, in_axes=(0, None))
    step_all = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def rollout_step(carry: Any, key: Array) -> tuple[Any, Transition]:
        state, env_state, obs = carry
        choose, act = jax.random.split(key)
        out = state.apply_fn({"params": state.params}, obs)
        action = jax.random.categorical(choose, out["actor"])
        after, env_state, reward, terminated, truncated, info = step_all(
            jax.random.split(act, config.envs), env_state, action, env_params
        )
        reached = state.apply_fn({"params": state.params}, info["final_observation"])
        transition = Transition(
            obs=obs,
            action=action,
            log_prob=log_prob(out["actor"], action),
            value=out["critic"],
            reward=config.reward_scale * reward,
            terminated=terminated,
            done=jnp.logical_or(terminated, truncated),
            next_value=reached["critic"],
            episode_return=info["returned_episode_returns"],
            episode_known=info["returned_episode_valid"],
        )
        return (state, env_state, after), transition

    def learn(state: TrainState, steps: Transition, key: Array) -> TrainState:
        advantage = advantages(steps, config.discount, config.trace_decay)
        data = (steps, advantage, advantage + steps.value)
        size = config.envs * config.rollout
        data = jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), data)

        def epoch(state: TrainState, key: Array) -> tuple[TrainState, None]:
            order = jax.random.permutation(key, size).reshape(config.minibatches, -1)

            def minibatch(state: TrainState, rows: Array) -> tuple[TrainState, None]:
                batch = jax.tree.map(lambda leaf: leaf[rows], data)
                grads = jax.grad(surrogate)(state.params, state.apply_fn, batch, config)
                return state.apply_gradients(grads=grads), None

            return jax.lax.scan(minibatch, state, order)

        return jax.lax.scan(epoch, state, jax.random.split(key, config.epochs))[0]

    def update(carry: Any, number: Array) -> tuple[Any, tuple[Array, Array]]:
        state, env_state, obs, visited, key = carry
        key, rollout_key, learn_key = jax.random.split(key, 3)
        (state, env_state, obs), steps = jax.lax.scan(
            rollout_step, (state, env_state, obs), jax.random.split(rollout_key, config.rollout)
        )
        if visit is not None:
            visited = visit(visited, number, state, steps.obs)
        state = learn(state, steps, learn_key)
        known = steps.episode_known[-1]
        mean = jnp.mean(steps.episode_return[-1], where=known)
        return (state, env_state, obs, visited, key), (mean, steps.obs)

    def train(key: Array) -> Trained:
        init_key, reset_key, key = jax.random.split(key, 3)
        obs, env_state = reset(jax.random.split(reset_key, config.envs), env_params)
        params = module.init(init_key, obs)["params"]
        state = TrainState.create(apply_fn=module.apply, params=params, tx=tx)
        # flax starts with a Python integer, whose type the first update would change.
        state = state.replace(step=jnp.zeros((), jnp.int32))
        carry = (state, env_state, obs, visited, key)
        carry, (returns, seen) = jax.lax.scan(update, carry, jnp.arange(config.updates))
        return Trained(carry[0], returns, seen[-1].reshape(-1, *seen.shape[3:]), carry[3])

    return train


def advantages(steps: Transition, discount: float, trace_decay: float) -> Array:
    """``(rollout, envs)`` generalised advantage estimates (Schulman et al., 2016)."""

    def back(after: Array, step: Transition) -> tuple[Array, Array]:
        target = step.reward + discount * step.next_value * (1 - step.terminated)
        now = target - step.value + discount * trace_decay * (1 - step.done) * after
        return now, now

    return jax.lax.scan(back, jnp.zeros_like(steps.value[0]), steps, reverse=True)[1]


def surrogate(params: PyTree, apply_fn: Any, batch: Any, config: PPO) -> Array:
    """The loss of a minibatch (Schulman et al., 2017); advantages are standardised in it."""
    steps, advantage, target = batch
    out = apply_fn({"params": params}, steps.obs)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = jnp.exp(log_prob(out["actor"], steps.action) - steps.log_prob)
    near = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    actor = -jnp.minimum(ratio * advantage, near * advantage).mean()
    critic = 0.5 * ((out["critic"] - target) ** 2).mean()
    log_p = jax.nn.log_softmax(out["actor"])
    entropy = -(jnp.exp(log_p) * log_p).sum(-1).mean()
    return actor + config.value_weight * critic - config.entropy_weight * entropy


def log_prob(logits: Array, action: Array) -> Array:
    """Logarithm of the probability of each action."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], -1)[..., 0]


def _normal(scale: float) -> Any:
    # Not orthogonal: under vmap that is a batch of QR decompositions, each of which holds a thread
    # of the CPU pool and waits for others of it; with few cores all wait for ever (jaxlib 0.10.1).
    return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")
