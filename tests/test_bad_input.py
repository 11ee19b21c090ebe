"""What a user can get wrong at the front door: one row each, with error class and message.

A full disk is in tests/recording/test_recorder.py.
"""

import sqlite3

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkstats as nts
from ntkstats import collectors, errors

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
PARAMS = {"w": jnp.ones((3, 2))}


def apply(params, x):
    return jnp.tanh(x @ params["w"])


def record(
    tmp_path, *, model=apply, params=PARAMS, probe=None, measure=None, path="run", **options
):
    """Make a recorder and show it one state."""
    recorder = nts.Recorder(
        tmp_path / path,
        nts.as_model(model),
        nts.Probe(X, Y) if probe is None else probe,
        collectors.ntk_spectrum() if measure is None else measure,
        **options,
    )
    try:
        recorder(0, params)
    finally:
        recorder.close()
    return recorder


def existing_run(tmp_path):
    record(tmp_path)
    record(tmp_path)


def newer_schema(tmp_path):
    record(tmp_path)
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    nts.open_run(tmp_path / "run")


def resumed_with_another_probe(tmp_path):
    record(tmp_path)
    record(tmp_path, probe=nts.Probe(X + 1, Y), resume=True)


def resumed_with_another_config(tmp_path):
    record(tmp_path, config={"width": 4})
    record(tmp_path, config={"width": 8}, resume=True)


def batch_mean(params, x):
    out = x @ params["w"]
    return out - out.mean(0)


ROWS = {
    "empty probe": (lambda t: nts.Probe(X[:0]), "ProbeError", "0"),
    "probe that is not finite": (
        lambda t: nts.Probe(np.array([[1.0, np.nan]])),
        "ProbeError",
        "finite",
    ),
    "ragged probe": (lambda t: nts.Probe({"a": X, "b": X[:2]}), "ProbeError", "4"),
    "targets of another length": (lambda t: nts.Probe(X, Y[:3]), "ProbeError", "3"),
    "probe of another shape": (
        lambda t: record(t, probe=nts.Probe(X[:, :2], Y)),
        "ProbeError",
        "(4, 2)",
    ),
    "params that do not match": (
        lambda t: record(t, params={"v": PARAMS["w"]}),
        "NtkStatsError",
        "'w'",
    ),
    "integer params": (
        lambda t: record(t, params={"w": jnp.ones((3, 2), int)}),
        "ParamsError",
        "",
    ),
    "complex params": (
        lambda t: record(t, params={"w": jnp.ones((3, 2), jnp.complex64)}),
        "ParamsError",
        "complex",
    ),
    "no targets": (
        lambda t: record(t, probe=nts.Probe(X), measure=collectors.loss("cross_entropy")),
        "MissingTargetsError",
        "Probe(x, y)",
    ),
    "model without outputs": (
        lambda t: record(t, model=lambda p, x: (x @ p["w"])[:, :0]),
        "ModelError",
        "",
    ),
    "model without a sample axis": (
        lambda t: record(t, model=lambda p, x: (x @ p["w"]).sum()),
        "ModelError",
        "",
    ),
    "complex outputs": (
        lambda t: record(t, model=lambda p, x: (x @ p["w"]) * 1j),
        "ComplexOutputError",
        "real",
    ),
    "unknown head": (
        lambda t: record(t, measure=collectors.ntk_spectrum(head="critic")),
        "HeadError",
        "critic",
    ),
    "samples that interact": (
        lambda t: record(t, model=batch_mean),
        "CoupledSamplesError",
        "coupled=True",
    ),
    "something that is no model": (lambda t: nts.as_model(3), "ModelError", "int"),
    "duplicate collector names": (
        lambda t: record(t, measure=[collectors.ntk_spectrum(), collectors.ntk_spectrum()]),
        "DuplicateNameError",
        "name",
    ),
    "budget too small": (
        lambda t: record(t, budget_bytes=16),
        "BudgetError",
        "Raise",
    ),
    "empty schedule": (lambda t: nts.RecordAt.steps([]), "ScheduleError", ""),
    "schedule of negative steps": (lambda t: nts.RecordAt.every(-1), "ScheduleError", "-1"),
    "existing run": (existing_run, "ExistingRunError", "resume=True"),
    "run that is not there": (lambda t: nts.open_run(t / "nothing"), "RunNotFoundError", ""),
    "store of a newer schema": (newer_schema, "SchemaVersionError", "999"),
    "resumed with another probe": (resumed_with_another_probe, "RunMismatchError", "probe"),
    "resumed with another config": (resumed_with_another_config, "RunMismatchError", "width"),
}


@pytest.mark.parametrize("row", ROWS)
def test_mistake_gets_a_clear_error(row, tmp_path):
    call, error, part = ROWS[row]
    with pytest.raises(getattr(errors, error)) as caught:
        call(tmp_path)
    message = str(caught.value)
    assert part in message
    assert len(message) > 20


def test_model_that_turns_nan_midway_is_recorded_and_the_run_goes_on(tmp_path):
    recorder = nts.Recorder(
        tmp_path / "run",
        nts.as_model(apply),
        nts.Probe(X, Y),
        collectors.ntk_spectrum(),
        at=nts.RecordAt.every(1),
    )
    for step in range(4):
        recorder(step, jax.tree.map(lambda p, s=step: p * (np.nan if s == 2 else 1.0), PARAMS))
    recorder.finish(PARAMS)
    ds = nts.open_run(tmp_path / "run")
    assert np.isnan(ds.entropy.values).tolist() == [False, False, True, False, False]
    assert ds.attrs["non_finite_steps"] == [2]
