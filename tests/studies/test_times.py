"""Time of tasks is told apart: compiling, recording, all else."""

from __future__ import annotations

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats.recording import open_run
from studies._folder import read_json
from studies._times import TIMES, Spent, length, merged, shared, spent, timed
from studies.sweeps import LineScreen, run_sweep, sweep
from studies.sweeps._report import report_sweep
from tests.studies.sweeps import tiny


def test_merged_stretches_cover_the_same_time_without_overlaps():
    points = np.random.default_rng(0).integers(0, 60, (40, 2))
    stretches = [(float(min(p)), float(max(p))) for p in points]
    found = merged(stretches)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    covered = {t for a, b in stretches for t in range(int(a), int(b))}
    assert length(found) == len(covered)
    assert covered == {t for a, b in found for t in range(int(a), int(b))}


def test_shared_time_is_the_intersection():
    one, other = [(0.0, 4.0), (6.0, 8.0)], [(3.0, 7.0)]
    assert shared(one, other) == pytest.approx(2.0)
    assert shared(one, []) == 0
    assert shared(one, one) == pytest.approx(length(one))


def test_compilation_is_noticed_and_a_second_call_compiles_nothing(tmp_path):
    f = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))
    x = jnp.ones(37)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with timed(tmp_path / name):
            f(x).block_until_ready()
    first, second = (read_json(tmp_path / name / TIMES) for name in ("first", "second"))
    assert 0 < length(first["compiling"]) <= first["seconds"]
    assert second["compiling"] == []


def test_a_task_that_fails_leaves_no_times(tmp_path):
    with pytest.raises(ZeroDivisionError), timed(tmp_path):
        1 / 0  # noqa: B018
    assert not (tmp_path / TIMES).exists()
    assert spent([tmp_path]) is None


def test_a_sweep_says_where_its_time_went(tmp_path):
    run_sweep(
        sweep(tiny.study, {"width": (4, 6)}, base=tiny.Config(steps=4, records=3, seeds=2)),
        tmp_path,
        LineScreen(io.StringIO()),
    )
    folders = [p.parent for p in tmp_path.glob("tasks/*/times.json")]
    found = spent(folders)
    assert isinstance(found, Spent)
    assert found.tasks == 2
    assert 0 < found.compiling < found.seconds
    records = sum(
        float(open_run(f / "run.sqlite")[name].sum())
        for f in folders
        for name in open_run(f / "run.sqlite").coords
        if str(name).startswith("record_seconds")
    )
    assert 0 < found.recording <= records
    assert found.compiling + found.recording < found.seconds
    assert str(found) in report_sweep(tmp_path, tiny.study).text
