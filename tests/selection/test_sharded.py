"""Rows spread over devices; each run is a process that has four."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ntkstats import errors
from ntkstats import selection as sel
from tests.selection.systems import KEY, SELECTORS, pool

FAST = ["lcmd"]
SLOW = [name for name, s in SELECTORS.items() if s.shards and name not in FAST]


def run(names):
    result = subprocess.run(
        [sys.executable, "-m", "tests.selection.sharded_runs", *names],
        cwd=Path(__file__).parents[2],
        env=os.environ
        | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == " ".join(["agree", *names])


def test_picks_do_not_depend_on_where_the_rows_are():
    run(FAST)


@pytest.mark.slow
def test_no_selector_depends_on_where_the_rows_are():
    assert {"rnd", "rnd_limit", "maxdet", "facility", "stratified", "by_batch"} <= set(SLOW)
    run(SLOW)


def test_what_cannot_be_spread_is_refused():
    mesh = jax.make_mesh((1,), ("rows",))
    with pytest.raises(errors.SelectionError, match="KMedoids needs all rows in one place"):
        sel.select_sharded(sel.KMedoids(), KEY, pool(), 2, mesh=mesh)
    with pytest.raises(errors.SelectionError, match="mesh_axis='columns'; expected one of"):
        sel.select_sharded(sel.MaxDet(), KEY, pool(), 2, mesh=mesh, mesh_axis="columns")
