"""What a run is, as JSON: stored once, and compared when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.errors import CollectorError, RunMismatchError
from ntkstats.recording.live._extras import RESERVED
from ntkstats.recording.live._groups import Group
from ntkstats.recording.live._meter import Meter
from ntkstats.recording.store._json import differences, plain
from ntkstats.recording.store._store import Stored, StoredField, field_to_json
from ntkstats.typing import Array

COLLECTOR, LOOP = "collector", "loop"
"""Who gave a field."""

# Tiles and budgets follow the machine; a run may go on elsewhere.
_MAY_DIFFER = frozenset({"kernel_plans"})


def key_data(key: Array) -> Any:
    """The numbers of a PRNG key of either kind."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(key) if typed else key).tolist()


def measured_fields(meter: Meter, groups: Sequence[Group]) -> tuple[StoredField, ...]:
    """Every field of the collectors with its step axis.

    Raises
    ------
    CollectorError
        A field has the name of an axis or coordinate.
    """
    fields = tuple(
        StoredField(field, group.axis, COLLECTOR)
        for group in groups
        for field in meter.fields(group.names)
    )
    reserved = sorted(RESERVED & {entry.field.name for entry in fields})
    if reserved:
        msg = f"a collector writes {reserved}, names of axes here; give it its own name="
        raise CollectorError(msg)
    return fields


def measurement(meter: Meter, groups: Sequence[Group]) -> dict[str, Any]:
    """What is measured, where and when."""
    return {
        "measurement": plain(dict(meter.program.attrs), "program.attrs"),
        "parameter_shapes": meter.shapes,
        "schedules": {group.axis: group.at.label for group in groups},
    }


def check_same_settings(stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to resume with another config, seed, key or number of members.

    Raises
    ------
    RunMismatchError
        Naming each difference.
    """
    _refuse([line for k in given for line in differences(stored.get(k), given[k], k)])


def check_same_measurement(
    stored: Stored, given: Mapping[str, Any], fields: Sequence[StoredField]
) -> None:
    """Refuse to resume with another model, probe or set of fields.

    Raises
    ------
    RunMismatchError
        Naming each difference.
    """
    lines = [
        line
        for name in ("measurement", "parameter_shapes")
        for line in differences(_comparable(stored.meta.get(name)), _comparable(given[name]), name)
    ]
    was = {n: _spec(f) for n, f in stored.fields.items() if f.origin == COLLECTOR}
    now = {f.field.name: _spec(f) for f in fields}
    _refuse([*lines, *differences(was, now, "fields")])


def _comparable(facts: Any) -> Any:
    return {k: v for k, v in (facts or {}).items() if k not in _MAY_DIFFER}


def _spec(entry: StoredField) -> dict[str, Any]:
    return {**json.loads(field_to_json(entry.field)), "axis": entry.axis}


def _refuse(lines: Sequence[str]) -> None:
    if not lines:
        return
    shown = "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else "")
    msg = (
        f"the stored run differs: {shown}. Resume with what the run was started with, "
        f"or record into another path"
    )
    raise RunMismatchError(msg)
