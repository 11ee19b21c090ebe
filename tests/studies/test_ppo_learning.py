"""PPO learns, and a measurement costs the same for every seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.collectors import Collector, Eigenvalues, Kernel, Label
from studies._errors import StudyError
from studies.systems import ppo
from studies.systems.ppo import PPO, Transition
from tests.studies.watched_ppo import DUE, FROZEN, SEEDS, make_watch, measuring


def counting(calls):
    """A collector that says whenever an eigenvalue was really computed."""

    def measure(moment, carry):
        top = moment.get(Eigenvalues(Kernel(moment.head)))[0]
        jax.debug.callback(lambda value: calls.append(float(value)), top)
        return carry, {"top": top}

    return Collector(
        "counting",
        measure,
        lambda binding, head: {"top": Label("largest eigenvalue")},
        lambda head: (Eigenvalues(Kernel(head)),),
        head="actor",
    )


def test_four_seeds_cost_four_times_the_measurements_of_one():
    counts = []
    for seeds in (SEEDS[:1], SEEDS):
        calls = []
        watch = make_watch([counting(calls)], probes=(FROZEN,))
        train = measuring(watch)
        one = len(seeds) == 1
        found = jax.jit(train if one else jax.vmap(train))(seeds[0] if one else seeds)
        jax.block_until_ready(found)
        jax.effects_barrier()
        recorded_values = watch.results(found.visited)[0]["top_actor"]
        np.testing.assert_allclose(sorted(calls), np.sort(recorded_values.ravel()))
        counts.append(len(calls))
    assert counts[0] == len(DUE)
    assert counts[1] == 4 * counts[0] < 6 * counts[0]


# --- learning ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_every_seed_learns_to_balance_the_pole(shared):
    config = PPO(updates=40, shared_trunk=shared)
    found = jax.jit(jax.vmap(ppo.make_train(config)))(SEEDS)
    returns = np.asarray(found.returns)
    start, end = returns[:, :3].mean(1), returns[:, -10:].mean(1)
    # A random policy balances it for some 20 steps; 500 is the end of an episode.
    assert (start < 50).all()
    assert (end > 200).all()
    assert end.mean() > 300


def test_advantages_are_those_of_the_sum_over_temporal_differences():
    rng = np.random.default_rng(0)
    t, envs, discount, decay = 7, 3, 0.9, 0.8
    ended = rng.random((2, t, envs)) < 0.2
    value, after, reward = rng.normal(size=(3, t, envs))
    empty = np.zeros((t, envs))
    steps = Transition(
        empty, empty, empty, value, reward, ended[0], ended.any(0), after, empty, empty
    )
    expected = np.zeros((t, envs))
    for e in range(envs):
        for start in range(t):
            factor = 1.0
            for i in range(start, t):
                bootstrap = 0.0 if ended[0, i, e] else after[i, e]
                expected[start, e] += factor * (reward[i, e] + discount * bootstrap - value[i, e])
                if ended[:, i, e].any():
                    break
                factor *= discount * decay
    found = ppo.advantages(jax.tree.map(jnp.asarray, steps), discount, decay)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_episode_that_ran_out_of_time_is_bootstrapped_from_its_last_state():
    kept = {"next": [], "terminated": [], "done": []}
    env, params = ppo.environment("CartPole-v1")
    params = params.replace(max_steps_in_episode=3)
    obs, state = env.reset(jax.random.key(0), params)
    for i in range(6):
        obs, state, _, terminated, truncated, info = env.step(
            jax.random.key(i), state, i % 2, params
        )
        kept["next"].append(np.asarray(info["final_observation"]))
        kept["terminated"].append(bool(terminated))
        kept["done"].append(bool(truncated))
    # What gymnax means by the names that the training relies on.
    assert kept["done"] == [False, False, True] * 2
    assert not any(kept["terminated"])
    assert not np.allclose(kept["next"][2], np.asarray(obs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPO(updates=0), "updates=0; expected at least 1"),
        (lambda: PPO(envs=3, rollout=5, minibatches=4), "choose a divisor"),
        (lambda: ppo.environment("Pole"), "env='Pole'; expected one of .*CartPole-v1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(StudyError, match=message):
        make()
