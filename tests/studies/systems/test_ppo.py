"""PPO in one jit: it learns, recording changes nothing, and records are those of its parameters."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntkstats as nts
from ntkstats.collectors import Collector, Eigenvalues, Kernel, Label
from studies._errors import StudyError
from studies.systems import ppo
from studies.systems.ppo import PPO, Transition

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


def keep(kept, update, state, obs):
    """All that a record is made from, of every update."""
    return jax.tree.map(
        lambda rows, now: rows.at[update].set(now), kept, (state.params, shown(obs))
    )


@cache
def bare():
    """Training of all seeds without records, and what each update saw."""
    params = ppo.network(SHORT).init(jax.random.key(0), FROZEN.x)["params"]
    empty = jax.tree.map(
        lambda leaf: jnp.zeros((SHORT.updates, *leaf.shape), leaf.dtype), (params, FROZEN.x)
    )
    return jax.jit(jax.vmap(ppo.make_train(SHORT, visit=keep, visited=empty)))(SEEDS)


@cache
def recorded():
    watch = make_watch(SPECTRA)
    return watch, jax.jit(jax.vmap(measuring(watch)))(SEEDS)


# --- recording --------------------------------------------------------------------------------


def test_training_is_the_same_with_the_watch():
    _, found = recorded()
    jax.tree.map(np.testing.assert_array_equal, found.state.params, bare().state.params)
    np.testing.assert_array_equal(found.returns, bare().returns)


def test_records_are_those_of_the_parameters_at_these_updates():
    watch, found = recorded()
    records, steps = watch.results(found.visited)
    assert steps.tolist() == DUE
    params, seen = jax.device_get(bare().visited)
    for seed in range(len(SEEDS)):
        for k, step in enumerate(DUE):
            then = jax.tree.map(lambda leaf, at=(seed, step): leaf[at], params)
            for suffix, x in (("", FROZEN.x), ("_on_policy", seen[seed, step])):
                for head in ("actor", "critic"):
                    kernel = nts.empirical_ntk(
                        MODEL, *MODEL.split(then), x, head=head, outputs="trace"
                    )
                    values = np.linalg.eigvalsh(np.asarray(kernel.matrix, float))[::-1]
                    np.testing.assert_allclose(
                        records[f"eigenvalues_{head}{suffix}"][seed, k],
                        values,
                        rtol=1e-3,
                        atol=1e-5 * values[0],
                    )


def test_the_states_of_the_on_policy_probe_move_and_differ_between_seeds():
    seen = np.asarray(bare().visited[1])
    assert not np.allclose(seen[:, 0], seen[:, 4])
    assert not np.allclose(seen[0], seen[1])


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


def test_with_only_the_optimiser_changed_the_same_is_recorded():
    frozen = make_watch(SPECTRA[:1], probes=(FROZEN,))
    watching = nts.as_optax(frozen, updates_per_step=SHORT.updates_per_rollout)
    tx = optax.chain(watching, ppo.optimiser(SHORT))
    found = jax.jit(jax.vmap(ppo.make_train(SHORT, tx=tx)))(SEEDS)
    # Another program: XLA may fuse the update with what stands beside it, and round otherwise.
    same = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(same, found.state.params, bare().state.params)
    records, steps = frozen.results(found.state)
    assert steps.tolist() == DUE
    watch, inside = recorded()
    expected, _ = watch.results(inside.visited)
    for name, values in records.items():
        # Some fields, the negative mass say, are nothing but rounding.
        atol = 2e-5 * max(np.abs(expected[name]).max(), 0.1)
        np.testing.assert_allclose(values, expected[name], rtol=2e-4, atol=atol, err_msg=name)


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
