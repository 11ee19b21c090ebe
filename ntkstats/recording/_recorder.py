"""The recorder: called in the training loop, it measures when due and never stops the training."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from ntkstats.collectors import Collector, Program
from ntkstats.errors import RecordingError
from ntkstats.models import Probe, as_model, on_probes, without_torch
from ntkstats.recording._schedule import RecordAt
from ntkstats.recording.live._conductor import Conductor
from ntkstats.recording.live._estimate import Overhead, measure_overhead
from ntkstats.recording.live._groups import (
    check_collectors,
    check_schedule,
    group_collectors,
)
from ntkstats.recording.live._journal import Journal, Report
from ntkstats.recording.live._memory import unpack
from ntkstats.recording.live._meter import Meter
from ntkstats.recording.live._outbox import Outbox
from ntkstats.recording.live._session import Session
from ntkstats.recording.live._settings import open_store, settings_of
from ntkstats.recording.live._stacked import steps_of, unstack
from ntkstats.recording.mirrors._sinks import Sink
from ntkstats.typing import Array, PyTree


class Recorder:
    """Measures a model while it trains and stores every record at once.

    Call it with the state **before** each update and `finish` it with the last one. Between due
    steps a call costs a set look-up. A due call has the device measure and returns; a thread
    writes the numbers as they come, a few records behind at most, in order. The next step may
    donate its buffers. `flush` waits for the disk; `finish`, the end of a ``with`` block and the
    interpreter's exit do so by themselves.

    The first state of a run and the final one are recorded with everything, whatever the
    schedules say. What goes wrong later is stored with the run and warned about once; it never
    stops the training, unless ``strict``.

    Parameters
    ----------
    path
        File of the run: ``"runs/first"`` is ``runs/first.sqlite``. Missing folders are made.
    model
        A `Model` or anything that [`as_model`][ntkstats.as_model] takes.
    probes
        A `Probe` or several.
    collectors
        A collector or several, from [`ntkstats.collectors`][ntkstats.collectors].
    at
        When to record; collectors with an ``at`` of their own follow that. By default the
        schedule that all collectors share, otherwise about 17 records a decade up to step 10^6
        and every 10^5 steps from there.
    key
        PRNG key of the randomised collectors, default ``jax.random.key(0)``. Stored.
    config
        Dataclass or dict that describes the run; stored, and compared on resuming.
    seed
        Seed of the run, or one for each member. Only stored; nothing is drawn from it.
    members
        Size of an ensemble trained together: the leaves of what the loop passes, and the records,
        have a leading member axis.
    resume
        Continue the run at this path if there is one, as if it had never stopped; with collectors
        that compare records, `restore` what `state` said when the checkpoint was saved. The rows
        at and after the first step seen are superseded: kept in the file, and not shown by
        default. ``"takeover"`` also takes the run from a process that cannot be asked whether it
        still runs (on another machine).
    strict
        Raise a RecordingError for what would otherwise be stored and warned about; every record
        is then on disk when its call returns.
    background
        False has every record on disk when its call returns.
    sinks
        Mirrors of the scalars, see `Sink`; their failures are warned about only.
    precision, budget_bytes
        As for [`bind`][ntkstats.collectors.bind].

    Raises
    ------
    ExistingRunError
        The path holds a run and ``resume`` is False.
    StoreError
        The path cannot be written, another process writes it, or the config is not JSON.
    RunMismatchError
        The run to be resumed was started with something else.
    CollectorError, DuplicateNameError, ScheduleError, ModelError
        Arguments that make no sense.

    Notes
    -----
    A step is recorded when it is both called for and due: a loop that calls every 100 steps needs
    a schedule of such steps. A file that holds no record yet is started anew.

    Checks that need the parameters (heads, targets, shapes, missing extras) run at the first call
    and are raised there, since nothing is lost yet.

    Scalars passed by keyword (``recorder(step, state, loss=value)``) become variables of the run
    with the recorder's own schedule, unless a collector writes a variable of that name. Other
    extras reach only the collectors that ask for them.

    With several JAX processes every one of them measures and the first one writes.

    Examples
    --------
    >>> import tempfile, jax, jax.numpy as jnp, ntkstats as nts
    >>> params, probe = jnp.ones((3, 2)), nts.Probe(jnp.eye(3))
    >>> model = nts.as_model(lambda params, x: x @ params)
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/first"
    >>> spectrum = nts.collectors.ntk_spectrum()
    >>> with nts.Recorder(path, model, probe, spectrum, at=nts.RecordAt.every(2)) as recorder:
    ...     for step in range(4):
    ...         recorder(step, params, loss=jnp.sum(params**2))
    ...         params = 0.9 * params
    ...     report = recorder.finish(params)
    >>> report.records, report.failures, report.status
    (3, 0, 'finished')
    >>> nts.open_run(path).step.values
    array([0, 2, 4])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Any,
        probes: Probe | Sequence[Probe],
        collectors: Collector | Sequence[Collector],
        *,
        at: RecordAt | None = None,
        key: Array | None = None,
        config: Any = None,
        seed: int | Sequence[int] | None = None,
        members: int | None = None,
        resume: bool | str = False,
        strict: bool = False,
        background: bool = True,
        sinks: Sequence[Sink] = (),
        precision: str | None = None,
        budget_bytes: int | None = None,
    ) -> None:
        listed = check_collectors(collectors)
        if at is not None:
            check_schedule(at, "at")
        adapted = as_model(model)
        key = jax.random.key(0) if key is None else key
        settings = settings_of(config, seed, key, members)

        def make_meter(obj: Any, extras: Mapping[str, Any]) -> Meter:
            fixed, stand_ins = on_probes(adapted, probes, precision, budget_bytes)
            return Meter(
                fixed,
                obj,
                stand_ins,
                listed,
                key=key,
                members=members,
                precision=precision,
                budget_bytes=budget_bytes,
                extras=extras,
            )

        self._groups = group_collectors(listed, at)
        self._members = members
        self._strict = strict
        store, stored = None, None
        if jax.process_index() == 0:
            store, stored = open_store(path, resume, settings)
        self._journal = Journal(store, sinks, strict=strict)
        self._outbox = Outbox(self._journal, background=background and not strict)
        # A recorder that is dropped, or lives until the interpreter ends, gives back its lock.
        weakref.finalize(self, self._outbox.abandon)
        self._session = Session(
            make_meter, self._groups, self._journal, self._outbox, stored, settings
        )
        self._conductor = Conductor(self._groups, self._session, self._journal, self._outbox)

    def __call__(self, step: int, obj: Any, **extras: Any) -> None:
        """Record ``obj`` if ``step`` is due.

        Parameters
        ----------
        step
            Number of updates applied to ``obj`` so far. A step that is recorded already is
            passed over; one that lies before it is a failure.
        obj
            What the loop holds before its next update: parameters, TrainState, module.
        extras
            What belongs to the same parameters: scalars are stored, collectors get what they ask
            for.

        Raises
        ------
        NtkStatsError
            At the first call, what does not fit together; later only with ``strict``.
        """
        self._conductor.call(step, obj, extras)

    def finish(self, obj: Any, step: int | None = None, **extras: Any) -> Report:
        """Record the final state with all collectors, mark the run finished and close it.

        A finished run stays as it is.

        Parameters
        ----------
        obj
            The state after the last update.
        step
            Number of updates applied to it; default one more than at the last call (0 if there
            was none). Needed after `extend` with some steps of a scan only. If that step is
            recorded already nothing is added.
        extras
            As in a call. A collector whose extras are missing is left out and noted as a failure.
        """
        conductor = self._conductor
        if self._journal.status == "finished":
            return self.flush()
        if step is None and conductor.step_unknown:
            msg = (
                "finish was called without step= after extend with some steps of a scan, and "
                "only the loop knows how many updates it made; the final state is not recorded. "
                "Pass step="
            )
            self._journal.fail(None, "finish", RecordingError(msg))
            return conductor.end("finished")
        conductor.visit(conductor.seen + 1 if step is None else step, obj, extras, final=True)
        return conductor.end("finished")

    def close(self) -> Report:
        """Close the run without a final record; a closed one stays as it is."""
        return self._conductor.end("closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._conductor.end("closed" if kind is None else "interrupted")

    def flush(self) -> Report:
        """Return when every record so far is on disk, and warn about those that are lost."""
        return self._conductor.flush()

    @property
    def members(self) -> int | None:
        """Size of the ensemble, None for a single network."""
        return self._members

    @property
    def strict(self) -> bool:
        """Whether failures are raised."""
        return self._strict

    def note(self, error: Exception, step: int | None = None) -> None:
        """Store as a failure what went wrong on the way to a call; raised only if ``strict``.

        Parameters
        ----------
        error
            What was raised outside of the recorder, where the state to be recorded was looked up.
        step
            Where, if known.
        """
        self._journal.fail(step, "measure", error)

    def due(self, step: int) -> bool:
        """Whether a call at that step would record something."""
        return self._conductor.due(step)

    def __repr__(self) -> str:
        return f"Recorder({self._conductor.report()})"

    def bind(self, obj: Any, **extras: Any) -> Program:
        """Bind the collectors to what the loop holds, and give the program for a scan of its own.

        A call does this by itself. The records that a scan stacks up go to `extend`.
        """
        return self._session.bind(obj, without_torch(extras)).program

    @property
    def carry(self) -> PyTree:
        """What the collectors remember between records; a scan of your own starts from it.

        Set it to what the scan returned. For checkpoints, see `state`.
        """
        self._conductor.settle()
        return self._session.carry

    @carry.setter
    def carry(self, carry: PyTree) -> None:
        self._session.carry = carry

    def state(self) -> dict[str, np.ndarray]:
        """What the recorder remembers, to be saved with a checkpoint of the training state.

        Returns
        -------
        dict
            Arrays of fixed shapes by name, without PRNG key types: orbax, safetensors and
            ``np.savez`` hold it as it is.
        """
        # What it knows as recorded is on disk, so that no checkpoint is ahead of the run.
        self._conductor.flush()
        return self._session.memory()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was saved; call it before the first call, with ``resume``.

        Parameters
        ----------
        state
            What `state` returned when the checkpoint was saved.

        Raises
        ------
        RecordingError
            It is something else, or this recorder has recorded already.
        RunMismatchError
            It belongs to other collectors or probes; raised at the first call or `bind`.
        """
        if self._conductor.started:
            msg = "restore was called after the first call; resume in a new Recorder, restore first"
            raise RecordingError(msg)
        self._session.restore(unpack(state))

    def extend(
        self,
        records: Mapping[str, Any],
        steps: RecordAt | Iterable[int],
        *,
        time_axis: int | None = None,
    ) -> None:
        """Store records that a scan has stacked up, all in one transaction.

        Parameters
        ----------
        records
            ``{field: array}`` with a time axis in front, or behind the member axis
            ``(members, time, ...)`` as a vmapped scan gives it. Names that are no field are
            stored like scalars of a call.
        steps
            The step of each record, or the schedule that they follow from its first step on. A
            record whose step is stored already (the end of the previous chunk) is passed over.
        time_axis
            0 for a program that was bound for members and scanned; by default 1 with members, 0
            without.
        """
        program = self._session.meter.program
        axis = time_axis if time_axis is not None else int(self._members is not None)

        def unstacked() -> tuple[list[int], Any]:
            host = jax.device_get(dict(records))
            arrays = unstack(host, program.fields, self._members, axis)
            return steps_of(steps, len(arrays)), arrays

        self._conductor.extend(unstacked)

    def estimate(
        self, obj: Any, total_steps: int, *, step_seconds: float | None = None, **extras: Any
    ) -> Overhead:
        """Measure what recording will cost, before a long run; nothing is stored.

        Parameters
        ----------
        obj, extras
            As in a call.
        total_steps
            Number of updates of the whole run, at least 1.
        step_seconds
            Time of one training step, for the share of the total; a budget needs it.
        """
        extras = without_torch(extras)
        meter = self._session.bind(obj, extras)
        return measure_overhead(meter, self._groups, obj, total_steps, step_seconds, extras)
