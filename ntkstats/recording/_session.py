"""From what the loop holds to rows in the store; every error is raised."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ntkstats.errors import MissingExtraError, RecordingError
from ntkstats.recording._continuation import NOTHING, Past, complaints, past_of
from ntkstats.recording._extras import extra_field, scalars
from ntkstats.recording._facts import facts
from ntkstats.recording._groups import MEMBER, STEP, Group, union
from ntkstats.recording._identity import (
    LOOP,
    check_same_measurement,
    measured_fields,
    measurement,
)
from ntkstats.recording._journal import Journal
from ntkstats.recording._memory import Memory, refill, remembering
from ntkstats.recording._meter import Meter
from ntkstats.recording._store import Row, Stored, StoredField
from ntkstats.typing import PyTree


class Session:
    """One attempt at a run: bound and begun at its first state.

    Parameters
    ----------
    make_meter
        ``make_meter(obj, extras)`` binds the collectors.
    groups
        The collectors by schedule.
    journal
        Takes the rows.
    stored
        What the file says about the run that is resumed; None for a new run.
    settings
        Config, seed, key and members as JSON.
    """

    def __init__(
        self,
        make_meter: Callable[[Any, Mapping[str, Any]], Meter],
        groups: Sequence[Group],
        journal: Journal,
        stored: Stored | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._make_meter = make_meter
        self._groups = groups
        self._journal = journal
        self._stored = stored
        self._settings = settings
        self._meter: Meter | None = None
        self._begun = False
        entries = {} if stored is None else stored.fields
        self._passed = {n: e.field.shape for n, e in entries.items() if e.origin == LOOP}
        self.fields: dict[str, StoredField] = {}
        """What the collectors record; known once bound."""
        self.recorded = -1
        """The last step that is in the store; -1 if there is none."""
        self.sporadic = False
        """Whether only some of the due steps will be seen."""
        self._memory: Memory | None = None
        self._carry_was_set = False
        self._lacks: list[tuple[int, str, RecordingError]] = []

    @property
    def is_bound(self) -> bool:
        """Whether the collectors are bound to a model."""
        return self._meter is not None

    @property
    def meter(self) -> Meter:
        """The bound collectors."""
        if self._meter is None:
            msg = "the recorder is not bound to a model yet; call recorder.bind(obj) first"
            raise RecordingError(msg)
        return self._meter

    def bind(self, obj: Any, extras: Mapping[str, Any]) -> Meter:
        """Bind if that has not happened, and refuse to resume something else."""
        if self._meter is None:
            meter = self._make_meter(obj, extras)
            fields = measured_fields(meter, self._groups)
            if self._stored is not None:
                check_same_measurement(self._stored, measurement(meter, self._groups), fields)
            self._meter, self.fields = meter, {entry.field.name: entry for entry in fields}
            if self._memory is not None:
                self.carry = refill(meter.carry, self._memory.arrays)
        return self._meter

    @property
    def carry(self) -> PyTree:
        """What the collectors remember."""
        return self.meter.carry

    @carry.setter
    def carry(self, carry: PyTree) -> None:
        self.meter.carry = carry
        self._carry_was_set = True

    def restore(self, memory: Memory) -> None:
        """Go on with what was remembered when a checkpoint was saved."""
        if self._meter is not None:
            self.carry = refill(self._meter.carry, memory.arrays)
        self._memory = memory
        self.recorded = memory.recorded

    def continues(self, step: int) -> bool:
        """Whether a run that starts at ``step`` goes on with earlier records."""
        if self._memory is not None and self._memory.recorded >= 0:
            return True
        # Only the writer sees the file, and all processes have to decide alike.
        return jax.process_count() == 1 and bool(self._past.before(step))

    @cached_property
    def _past(self) -> Past:
        store = self._journal.store
        return NOTHING if self._stored is None or store is None else past_of(store.path)

    def record(
        self,
        step: int,
        obj: Any,
        due: Sequence[Group],
        extras: Mapping[str, Any],
        *,
        complete: bool,
    ) -> MissingExtraError | None:
        """Measure and store one record.

        Collectors whose extras are missing are left out and named by the error that is
        returned; with ``complete`` it is raised and nothing is recorded.
        """
        meter = self.bind(obj, extras)
        names = frozenset().union(*(group.names for group in due))
        lacking = meter.lacking(names, extras)
        if lacking and complete:
            raise _missing(lacking)
        self._begin(step)
        now, start = time.time(), time.perf_counter()
        names = names.difference(lacking)
        carry, arrays = meter.measure(names, step, obj, extras) if names else (meter.carry, {})
        axes = tuple(group.axis for group in due)
        passed = scalars(extras, self._settings["members"], self.fields) if STEP in axes else {}
        row = Row(step, axes, now, time.perf_counter() - start, arrays | passed)
        if row.arrays:
            self._write([row], passed)
            meter.carry = carry
        self._complain()
        return _missing(lacking) if lacking else None

    def extend(self, steps: Sequence[int], arrays: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Store one row for each step, all in one transaction; steps stored already are left."""
        if steps:
            self._begin(steps[0])
        now = time.time()
        rows = [
            Row(step, self._axes_of(row), now, 0.0, row)
            for step, row in zip(steps, arrays, strict=True)
            if step > self.recorded
        ]
        if rows:
            self._write(rows, {n: a for n, a in rows[0].arrays.items() if n not in self.fields})
        self._complain()

    def _axes_of(self, names: Mapping[str, Any]) -> tuple[str, ...]:
        axes = {self.fields[name].axis if name in self.fields else STEP for name in names}
        return tuple(sorted(axes))

    def _write(self, rows: Sequence[Row], passed: Mapping[str, np.ndarray]) -> None:
        """Commit rows; ``passed`` are the numbers from the loop, as in the first row."""
        for name, array in passed.items():
            if self._passed.get(name, array.shape) != array.shape:
                msg = (
                    f"{name!r} has shape {array.shape} and was {self._passed[name]} in earlier "
                    f"records; pass one number, or one for each member, all the time"
                )
                raise RecordingError(msg)
        new = {name: array for name, array in passed.items() if name not in self._passed}
        labels = [StoredField(extra_field(name, a), STEP, LOOP) for name, a in new.items()]
        per_member = {n for n, entry in self.fields.items() if entry.field.dims == (MEMBER,)}
        per_member |= {name for name, array in passed.items() if array.ndim}
        self._journal.write(rows, labels, per_member=per_member)
        self._passed |= {name: array.shape for name, array in new.items()}
        self.recorded = rows[-1].step

    def _begin(self, step: int) -> None:
        """Say in the store what the run is, that an attempt starts here, and what it lacks."""
        if self._begun:
            return
        past = self._past
        meta = {
            "run_id": uuid.uuid4().hex,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **self._settings,
            **measurement(self.meter, self._groups),
        }
        if self._journal.store is not None:
            fields = list(self.fields.values())
            # A step that the restored state knows as recorded is not measured again.
            from_step = max(step, self.recorded + 1)
            self._journal.store.begin(meta, fields, facts=facts(), from_step=from_step)
        self._begun = True
        forgetful = () if self._carry_was_set else remembering(self.meter.carry)
        due = None if self.sporadic else union(self._groups)
        self._lacks = [(step, *c) for c in complaints(step, past, due, self._memory, forgetful)]

    def _complain(self) -> None:
        """Note what the run lacks, once the first record is safe."""
        lacks, self._lacks = self._lacks, []
        for step, what, why in lacks:
            self._journal.fail(step, what, why)


def _missing(lacking: Mapping[str, Sequence[str]]) -> MissingExtraError:
    needs = "; ".join(f"collector {name!r} needs {', '.join(e)}" for name, e in lacking.items())
    return MissingExtraError(f"{needs}: pass it by keyword to the recorder")
