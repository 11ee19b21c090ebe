"""A training that is killed with SIGKILL and goes on from its newest orbax checkpoint."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ntkstats.recording import open_run

pytest.importorskip("orbax.checkpoint")
from tests.recording.orbax_child import main

# The processes that are killed compile as users do; numbers are compared to the last bit.
pytestmark = pytest.mark.optimised

STEPS = 24


def train(folder, *, kill_after=None):
    """Run the child; kill it at once when it has recorded a step. The steps it recorded."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.recording.orbax_child", str(folder), str(STEPS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
    )
    seen = []
    with child:
        for line in child.stdout:
            seen.append(int(line))
            if seen[-1] == kill_after:
                child.kill()
        errors = child.stderr.read()
    assert kill_after is not None or child.returncode == 0, errors
    return seen


@pytest.mark.parametrize("kills", [(13,), pytest.param((8, 13, 19), marks=pytest.mark.slow)])
def test_a_killed_training_goes_on_from_its_checkpoint_without_gap_or_duplicate(kills, tmp_path):
    main(tmp_path / "whole", STEPS)
    whole = open_run(tmp_path / "whole" / "run")
    assert whole.step.values.tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24]

    path = tmp_path / "killed" / "run"
    for kill in kills:
        seen = train(path.parent, kill_after=kill)
        assert open_run(path).attrs["status"] == "killed"
    # It goes on from a checkpoint older than the last record; saving may have been cut short.
    seen = train(path.parent)
    assert 5 <= seen[0] <= kills[-1]
    assert seen[0] % 5 == 0
    assert seen[-1] == STEPS - 1

    ds = open_run(path)
    for name in ("step", *whole.data_vars):
        np.testing.assert_array_equal(ds[name], whole[name], err_msg=name)
    assert [a["status"] for a in ds.attrs["attempts"]] == ["killed"] * len(kills) + ["finished"]
    assert ds.attrs["failures"] == []
    assert len(open_run(path, attempts="all").step) > len(whole.step)
