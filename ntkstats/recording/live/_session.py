"""From what the loop holds to rows in the store; every error is raised."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ntkstats.errors import MissingExtraError, RecordingError
from ntkstats.recording._warn import warn
from ntkstats.recording.live._budget import Purse
from ntkstats.recording.live._continuation import NOTHING, Past, complaints, past_of
from ntkstats.recording.live._extras import RESERVED, extra_field, scalars
from ntkstats.recording.live._facts import facts
from ntkstats.recording.live._groups import MEMBER, STEP, Group, union
from ntkstats.recording.live._identity import (
    LOOP,
    check_same_measurement,
    measured_fields,
    measurement,
)
from ntkstats.recording.live._journal import Journal
from ntkstats.recording.live._memory import Memory, pack, refill, remembering
from ntkstats.recording.live._meter import Meter
from ntkstats.recording.live._outbox import Draft, Outbox
from ntkstats.recording.store._store import Stored, StoredField
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
        Is told what the run is.
    outbox
        Takes the records.
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
        outbox: Outbox,
        stored: Stored | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._make_meter = make_meter
        self._groups = groups
        self._journal = journal
        self._outbox = outbox
        self._stored = stored
        self._settings = settings
        self._meter: Meter | None = None
        self._begun = False
        self._origin: tuple[PyTree, int] | None = None  # where the attempt began
        entries = {} if stored is None else stored.fields
        self._passed = {n: e.field.shape for n, e in entries.items() if e.origin == LOOP}
        self.fields: dict[str, StoredField] = {}
        """What the collectors record; known once bound."""
        self.recorded = -1
        """The last step that is in the store or on its way; -1 if there is none."""
        self.sporadic = False
        """Whether only some of the due steps will be seen."""
        self._memory: Memory | None = None
        self._carry_was_set = False
        self._said: set[str] = set()
        self._unsaid: list[str] = []
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
            if self._memory is not None and not self._memory.is_empty:
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

    def memory(self) -> dict[str, np.ndarray]:
        """What is remembered, for a checkpoint; before anything is bound, what was restored."""
        if self._meter is not None:
            return pack(self.recorded, self.carry)
        restored = {} if self._memory is None else dict(self._memory.arrays)
        return {**pack(self.recorded, {}), **restored}

    def restore(self, memory: Memory) -> None:
        """Go on with what was remembered when a checkpoint was saved."""
        if self._meter is not None and not memory.is_empty:
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
        wait: bool,
    ) -> MissingExtraError | None:
        """Measure one record and hand it over to be written.

        Collectors whose extras are missing are left out and named by the error that is
        returned; with ``complete`` it is raised and nothing is recorded. With ``wait`` the record
        is in the store on return, and what goes wrong is raised.
        """
        meter = self.bind(obj, extras)
        names = frozenset().union(*(group.names for group in due))
        lacking = meter.lacking(names, extras)
        if lacking and complete:
            raise _missing(lacking)
        self._begin(step)
        now, start = time.time(), time.perf_counter()
        names = names.difference(lacking)
        carry, arrays = meter.dispatch(names, step, obj, extras) if names else (meter.carry, {})
        axes = tuple(group.axis for group in due)
        passed = scalars(extras, self._settings["members"], self.fields) if STEP in axes else {}
        self._mention(extras.keys() - meter.wanted_extras)
        if arrays or passed:
            labels = self._labels(passed)
            both = arrays | passed
            draft = Draft(step, axes, now, start, both, labels, self._per_member(), carry)
            self._hand_over([draft], wait=wait)
        self._complain()
        return _missing(lacking) if lacking else None

    def record_paid(
        self,
        step: int,
        obj: Any,
        due: Sequence[Group],
        extras: Mapping[str, Any],
        purses: Sequence[Purse],
    ) -> MissingExtraError | None:
        """`record`, waited for and paid by the purses of its schedules.

        The first record of its kind compiles and is not paid; it is timed once more, so that
        the price of the next one is known.
        """
        self.meter.wait_for(obj)
        names = frozenset().union(*(group.names for group in due))
        is_new = names not in self.meter.measured
        start = time.perf_counter()
        missing = self.record(step, obj, due, extras, complete=False, wait=True)
        if is_new and missing is None and names:
            start = time.perf_counter()
            self.meter.measure(names, step, obj, extras)
            for purse in purses:
                purse.learn(time.perf_counter() - start)
        else:
            for purse in purses:
                purse.charge(time.perf_counter() - start)
        return missing

    def extend(self, steps: Sequence[int], arrays: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Store one row for each step, all in one transaction; steps stored already are left."""
        if steps:
            self._begin(steps[0])
        now = time.time()
        new = [(s, row) for s, row in zip(steps, arrays, strict=True) if s > self.recorded]
        if not new:
            return
        passed = {name: a for name, a in new[0][1].items() if name not in self.fields}
        labels, per_member = self._labels(passed), self._per_member()
        drafts = [
            Draft(s, self._axes_of(row), now, None, row, labels if i == 0 else (), per_member)
            for i, (s, row) in enumerate(new)
        ]
        self._hand_over([d._replace(carry=self.meter.carry) for d in drafts], wait=True)
        self._complain()

    def rewind(self) -> None:
        """Go on from the last record that is in the store, after others were lost."""
        safe = self._outbox.safe
        if safe is not None:
            self.meter.carry, self.recorded = safe.carry, safe.step
        elif self._origin is not None:
            self.meter.carry, self.recorded = self._origin

    def _axes_of(self, names: Mapping[str, Any]) -> tuple[str, ...]:
        axes = {self.fields[name].axis if name in self.fields else STEP for name in names}
        return tuple(sorted(axes))

    def _hand_over(self, drafts: Sequence[Draft], *, wait: bool) -> None:
        """Have the drafts written; with ``wait``, all or none, and raise what goes wrong."""
        if self._origin is None:
            self._origin = (self.meter.carry, self.recorded)
        self.meter.carry, self.recorded = drafts[-1].carry, drafts[-1].step
        try:
            if wait:
                self._outbox.write(drafts)
            else:
                self._outbox.put(drafts[0])
        except Exception:
            self.rewind()
            raise

    def _labels(self, passed: Mapping[str, Any]) -> list[StoredField]:
        """Fields of the numbers from the loop that are new."""
        for name, array in passed.items():
            if self._passed.get(name, array.shape) != array.shape:
                msg = (
                    f"{name!r} has shape {array.shape} and was {self._passed[name]} in earlier "
                    f"records; pass one number, or one for each member, all the time"
                )
                raise RecordingError(msg)
        new = {name: array for name, array in passed.items() if name not in self._passed}
        self._passed |= {name: array.shape for name, array in new.items()}
        return [StoredField(extra_field(name, a), STEP, LOOP) for name, a in new.items()]

    def _per_member(self) -> frozenset[str]:
        measured = {n for n, entry in self.fields.items() if entry.field.dims == (MEMBER,)}
        return frozenset(measured | {name for name, shape in self._passed.items() if shape})

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

    def _mention(self, names: Iterable[str]) -> None:
        """Keep in mind what the loop passes under a name that is taken, to be said once."""
        for name in sorted(names):
            if name in self._said or not (name in self.fields or name in RESERVED):
                continue
            self._said.add(name)
            self._unsaid.append(
                f"{name}= was passed to the recorder and is not stored: the run has a variable of "
                f"that name already. Pass yours by another one, such as train_{name}="
            )

    def say(self) -> None:
        """Warn about what was kept in mind; outside of a record, which a warning must not end."""
        unsaid, self._unsaid = self._unsaid, []
        for message in unsaid:
            warn(message)

    def _complain(self) -> None:
        """Note what the run lacks, once the first record is safe."""
        lacks, self._lacks = self._lacks, []
        for step, what, why in lacks:
            self._journal.fail(step, what, why)


def _missing(lacking: Mapping[str, Sequence[str]]) -> MissingExtraError:
    needs = "; ".join(f"collector {name!r} needs {', '.join(e)}" for name, e in lacking.items())
    return MissingExtraError(f"{needs}: pass it by keyword to the recorder")
