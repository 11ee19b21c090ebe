"""Several kernels in one record: on two cores their eigensolvers would wait for each other."""

import itertools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import collectors, spectrum
from ntkstats._compat import trace
from ntkstats.collectors import Snapshot, bind
from ntkstats.collectors._turns import Turns
from tests.collectors.systems import actor_critic, shot

RECORDS = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, jax.numpy as jnp, numpy as np
import ntkstats as nts

def apply(params, x):
    hidden = jnp.tanh(x @ params["w"])
    return {name: hidden @ params[name] for name in "abc"}

keys = dict(zip("wabc", jax.random.split(jax.random.key(0), 4)))
params = {n: jax.random.normal(k, (4, 4 if n == "w" else 64, 64 if n == "w" else 2))
          for n, k in keys.items()}
model = nts.as_model(apply)
probe = nts.Probe(np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32))
spectra = [nts.collectors.ntk_spectrum(), nts.collectors.covariance_entropy()]
program = nts.collectors.bind(model, params, probe, spectra, members=4)
carry = program.init(jax.random.key(0))
for step in range(60):
    snapshot = nts.collectors.Snapshot(step, *model.split(params), {})
    jax.block_until_ready(program.jitted(carry, snapshot))
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="needs affinity")
def test_an_ensemble_with_several_kernels_does_not_hang_on_two_cores():
    # Without turns the child is stuck within the first 50 records.
    child = [sys.executable, "-c", textwrap.dedent(RECORDS)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "done"


@pytest.mark.parametrize("members", [None, 2])
def test_every_eigensolver_of_a_record_waits_for_the_one_before(members):
    system = actor_critic()
    spectra = [collectors.ntk_spectrum(), collectors.covariance_entropy()]
    snapshot, params = shot(system), system.params
    if members is not None:
        params, *parts = (
            jax.tree.map(lambda leaf: jnp.stack([leaf] * members), tree)
            for tree in (params, *snapshot[1:])
        )
        snapshot = Snapshot(0, *parts)
    program = bind(system.model, params, system.probe, spectra, members=members)
    graph = trace(program.update, program.init(jax.random.key(0)), snapshot)
    solvers = [eqn for eqn in graph.equations if eqn.name == "eigh"]
    assert len(solvers) == 4  # two kernels of two heads
    for before, after in itertools.pairwise(solvers):
        waiting = graph.depending(before.outputs)
        assert waiting.issuperset(after.outputs)


def test_each_solver_waits_for_the_one_before_and_numbers_stay():
    rng = np.random.default_rng(0)
    matrices = [a @ a.T for a in rng.normal(size=(3, 5, 5)).astype(np.float32)]

    def together(matrices):
        turns = Turns()
        return [turns.take(spectrum.eigenvalues, matrix) for matrix in matrices]

    for found, matrix in zip(jax.jit(together)(matrices), matrices, strict=True):
        np.testing.assert_allclose(found, np.linalg.eigvalsh(matrix)[::-1], rtol=1e-4, atol=1e-4)
    # A spectrum that is not finite says nothing about those that follow.
    bad = together([jnp.full((5, 5), jnp.nan), matrices[0]])
    assert np.isnan(bad[0]).all()
    np.testing.assert_allclose(bad[1], np.linalg.eigvalsh(matrices[0])[::-1], rtol=1e-4, atol=1e-4)
