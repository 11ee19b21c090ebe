"""Stacked records, as a scan returns them, taken apart into rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ntkstats.collectors import Field
from ntkstats.errors import RecordingError
from ntkstats.recording._schedule import RecordAt
from ntkstats.recording.live._extras import RESERVED
from ntkstats.recording.store._arrays import to_numpy


def steps_of(steps: RecordAt | Iterable[int], length: int) -> list[int]:
    """The step of each of ``length`` rows.

    Raises
    ------
    RecordingError
        They are not one for each row, not integers, negative, or do not increase.
    """
    given = steps.first(length) if isinstance(steps, RecordAt) else np.asarray(steps)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        msg = f"steps must be a list of integers, got {given.dtype} of shape {given.shape}"
        raise RecordingError(msg)
    if len(given) != length:
        msg = f"{len(given)} steps for {length} stacked records; give one for each record"
        raise RecordingError(msg)
    listed = [int(step) for step in given]
    if listed and (listed[0] < 0 or any(b <= a for a, b in itertools.pairwise(listed))):
        msg = f"steps must increase from record to record, got {listed}"
        raise RecordingError(msg)
    return listed


def unstack(
    records: Mapping[str, Any], fields: Mapping[str, Field], members: int | None, time_axis: int
) -> list[dict[str, np.ndarray]]:
    """One ``{name: array}`` for each step, checked against the fields.

    Names that are no field are numbers from the loop: ``()`` a step, or ``(members,)``.

    Raises
    ------
    RecordingError
        There are no records, an array lacks the time axis, or a shape is not that of its field.
    """
    reserved = sorted(RESERVED & records.keys())
    if not records or reserved:
        what = f"the names {reserved}, which are taken by axes" if reserved else "no records"
        msg = f"extend was given {what}; give {{field: stacked array}}"
        raise RecordingError(msg)
    arrays = {name: to_numpy(name, value) for name, value in records.items()}
    lengths = {}
    for name, array in arrays.items():
        axis = time_axis if array.ndim > time_axis else 0
        if array.ndim == 0:
            msg = f"{name!r} is one number; stacked records have a time axis, one entry a step"
            raise RecordingError(msg)
        arrays[name] = np.moveaxis(array, axis, 0)
        lengths[name] = array.shape[axis]
        _check_shape(name, arrays[name].shape[1:], fields, members)
    if len(set(lengths.values())) != 1:
        msg = f"stacked records must be equally long along axis {time_axis}, got {lengths}"
        raise RecordingError(msg)
    length = next(iter(lengths.values()))
    return [{name: array[t] for name, array in arrays.items()} for t in range(length)]


def _check_shape(
    name: str, shape: tuple[int, ...], fields: Mapping[str, Field], members: int | None
) -> None:
    if name in fields:
        allowed = [fields[name].shape]
    else:
        allowed = [()] if members is None else [(), (members,)]
    if shape not in allowed:
        kind = "a record of this field" if name in fields else "a number that is no field"
        expected = " or ".join(map(str, allowed))
        msg = (
            f"{name!r} has shape {shape} at each step, expected {expected} for {kind}; with "
            f"members the member axis comes first, then time (or give time_axis=0)"
        )
        raise RecordingError(msg)
