"""A store as a recorder begins it."""

import numpy as np

from ntkstats.collectors import Field
from ntkstats.recording import open_run
from ntkstats.recording.store._store import Row, Store, StoredField

FIELD = StoredField(Field("value", ("i",), (3,)), "step", "collector")
META = {
    "run_id": "r",
    "created": "2026-01-01T00:00:00+00:00",
    "config": None,
    "seed": None,
    "measurement": {},
}


def begun(path, **options):
    """A store in which a run has begun."""
    store = Store(path, **options)
    store.begin(META, [FIELD], facts={}, from_step=0)
    return store


def row(step):
    return Row(step, ("step",), 0.0, 0.0, {"value": np.full(3, step, np.float32)})


def steps_in(path):
    return open_run(path).step.values.tolist()
