"""PPO in one jit: recording changes nothing, and records are those of its parameters."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntkstats as nts
from studies.systems import ppo
from tests.studies.watched_ppo import (
    DUE,
    FROZEN,
    MODEL,
    SEEDS,
    SHORT,
    SPECTRA,
    make_watch,
    measuring,
    shown,
)

# That numbers are the same to the last bit is a promise about programs as users get them.
pytestmark = pytest.mark.optimised


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
