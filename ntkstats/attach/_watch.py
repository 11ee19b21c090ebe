"""Collectors inside a jitted loop: records are kept on the device until the loop is over."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.attach._gate import only_if
from ntkstats.attach._stops import Carry, scan_between, scan_length
from ntkstats.collectors import Program, Snapshot
from ntkstats.errors import RecordingError
from ntkstats.models import Model
from ntkstats.recording import RecordAt
from ntkstats.typing import Array, PyTree


class Watched(NamedTuple):
    """What a watched loop carries along: a pytree of arrays of fixed shapes.

    Attributes
    ----------
    carry
        What the collectors remember between records.
    records
        ``{field: (K, ...)}``, one row for each step of the schedule.
    seen
        ``(K,)``: which rows are filled.
    """

    carry: PyTree
    records: dict[str, Array]
    seen: Array


@dataclass(frozen=True, eq=False)
class Watch:
    """A program and the steps at which it runs, as pure functions; from [`watch`][ntkstats.watch].

    Attributes
    ----------
    program
        Bound collectors.
    model
        Splits what the loop holds.
    steps
        ``(K,)`` steps that are recorded, in order.
    """

    program: Program = field(repr=False)
    model: Model = field(repr=False)
    steps: np.ndarray

    def init(self, key: Array | None = None) -> Watched:
        """Nothing recorded yet.

        Parameters
        ----------
        key
            PRNG key of collectors that draw; default ``jax.random.key(0)``. Under ``vmap`` over
            seeds, a key for each.
        """
        key = jax.random.key(0) if key is None else key
        rows = {
            name: jnp.zeros((len(self.steps), *field.shape), field.dtype)
            for name, field in self.program.fields.items()
        }
        return Watched(self.program.init(key), rows, jnp.zeros(len(self.steps), bool))

    def measure_if(self, watched: Watched, step: Array | int, obj: Any, **extras: Any) -> Watched:
        """Record ``obj`` if ``step`` is due; nothing is computed otherwise, also under vmap.

        XLA may copy the parameters before an update that follows, since it cannot tell that it
        does; `after` tells it, and `scan` has no condition at all.

        Parameters
        ----------
        watched
            From `init` or the last call.
        step
            Number of updates applied to ``obj``; a scalar integer.
        obj
            What the loop holds before its next update.
        extras
            What collectors ask for, as for a `Recorder`.
        """
        step = jnp.asarray(step)
        if not jnp.issubdtype(step.dtype, jnp.integer) or step.ndim:
            message = (
                f"measure_if was given a step of shape {step.shape} and dtype {step.dtype}; "
                "expected one integer, the number of updates so far. Count in integers."
            )
            raise RecordingError(message)
        self._check_own(watched)
        position = jnp.searchsorted(jnp.asarray(self.steps), step)
        row = jnp.minimum(position, len(self.steps) - 1)
        due = jnp.asarray(self.steps)[row] == step
        params, state = self.model.split(obj)
        return self._gated(due, watched, (row, Snapshot(step, params, state, extras)))

    def after(self, watched: Watched, tree: PyTree) -> PyTree:
        """The same numbers, computed after the measurement: gradients or updates, say.

        The parameters can then be updated where they lie, without a copy.
        """
        # Always true, but for all that XLA knows it depends on what was measured.
        measured = jnp.sum(watched.seen) <= len(self.steps)
        return jax.tree.map(lambda leaf: jnp.where(measured, leaf, jnp.zeros_like(leaf)), tree)

    def scan(
        self,
        step: Callable[[Carry, PyTree], tuple[Carry, PyTree]],
        init: Carry,
        xs: PyTree = None,
        length: int | None = None,
        *,
        obj_of: Callable[[Carry], Any] = lambda carry: carry,
        extras_of: Callable[[Carry], Mapping[str, Any]] = lambda _: {},
        start: int = 0,
        watched: Watched | None = None,
    ) -> tuple[Carry, PyTree, Watched]:
        """`jax.lax.scan` that records on the way; between records it costs nothing.

        Parameters
        ----------
        step, init, xs, length
            As for `jax.lax.scan`. An iteration is one step of the schedule.
        obj_of
            What the model splits, from the carry; by default the carry.
        extras_of
            What collectors ask for, from the carry.
        start
            The step of the first iteration, for a loop in several scans.
        watched
            From `init`, or from the scan before; default ``watch.init()``.

        Returns
        -------
        carry, ys
            As of `jax.lax.scan`.
        watched
            Holds the records of the states before the steps that are due. The last state belongs
            to the next scan, but for the last step of the schedule.

        Raises
        ------
        RecordingError
            There is not one length, ``start`` is no step, or ``watched`` is another watch's.
        TypeError
            As of `jax.lax.scan`.

        Notes
        -----
        Under ``vmap`` over seeds all lanes are measured at once, each with its own key in
        ``watched``. The loop has no reverse-mode derivative.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, ntkstats as nts
        >>> model = nts.as_model(lambda w, x: x @ w)
        >>> w, probe = jnp.ones((3, 2)), nts.Probe(jnp.eye(3))
        >>> program = nts.collectors.bind(model, w, probe, nts.collectors.param_norm())
        >>> watch = nts.watch(program, model, nts.RecordAt.every(4), until=8)
        >>> w, _, watched = watch.scan(lambda w, _: (0.5 * w, None), w, length=8)
        >>> records, steps = watch.results(watched)
        >>> steps.tolist(), [f"{norm:.3f}" for norm in records["param_norm"]]
        ([0, 4, 8], ['2.449', '0.153', '0.010'])
        """

        def measure(held: Watched, row: Array, stop: Array, carry: Carry) -> Watched:
            params, state = self.model.split(obj_of(carry))
            snapshot = Snapshot(start + stop, params, state, extras_of(carry))
            return self._record(held, (row, snapshot))

        held = self.init() if watched is None else watched
        self._check_own(held)
        start = _as_start(start)
        n = scan_length(xs, length)
        within = (self.steps >= start) & (self.steps < start + n)
        is_end = (self.steps == start + n) & (self.steps == self.steps[-1])
        rows = np.flatnonzero(within | is_end)
        return scan_between(step, measure, held, init, xs, n, rows, self.steps[rows] - start)

    def _check_own(self, watched: Watched) -> None:
        if watched.seen.shape[-1:] != (len(self.steps),) or set(watched.records) != set(
            self.program.fields
        ):
            message = (
                f"the watch of {len(self.steps)} steps was given the records of another one, of "
                f"{watched.seen.shape[-1]} steps. Pass what this watch's init returned."
            )
            raise RecordingError(message)

    def _record(self, watched: Watched, args: tuple[Array, Snapshot]) -> Watched:
        row, snapshot = args
        carry, entries = self.program.update(watched.carry, snapshot)
        records = {
            name: kept.at[row].set(entries[name].astype(kept.dtype))
            for name, kept in watched.records.items()
        }
        return Watched(carry, records, watched.seen.at[row].set(True))

    @cached_property
    def _gated(self) -> Any:
        return only_if(self._record)

    def results(self, tree: PyTree) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Records and their steps, for ``recorder.extend(*watch.results(...))``.

        Parameters
        ----------
        tree
            A `Watched`, or anything that holds exactly one: an optimiser state, a TrainState, the
            carry of a scan. Leaves may have leading axes from ``vmap`` over seeds.

        Returns
        -------
        records
            ``{field: (..., k, *shape)}``: the k rows that are filled.
        steps
            ``(k,)``.

        Raises
        ------
        RecordingError
            There is none or more than one, or seeds have recorded different steps.
        """
        watched = jax.device_get(find(tree))
        seen = np.reshape(watched.seen, (-1, len(self.steps)))
        if not (seen == seen[0]).all():
            message = (
                "The seeds have recorded different steps; expected the same for all, to put their "
                "records side by side. Take them apart (jax.tree.map(lambda a: a[i], ...)) and "
                "extend one recorder for each."
            )
            raise RecordingError(message)
        axis = watched.seen.ndim - 1
        rows = np.flatnonzero(seen[0])
        records = {name: np.take(kept, rows, axis) for name, kept in watched.records.items()}
        return records, self.steps[rows]


def watch(program: Program, model: Model, at: RecordAt, *, until: int) -> Watch:
    """Watch a loop that runs on the device: ``lax.scan``, ``fori_loop``, training in one jit.

    Parameters
    ----------
    program
        From [`bind`][ntkstats.collectors.bind], for one member (not with ``members=``).
    model
        From `as_model`; splits what `Watch.measure_if` is given.
    at
        When to record.
    until
        Last step of the loop: records for the steps up to it are kept on the device.

    Raises
    ------
    RecordingError
        The program was bound for an ensemble or in float64, or no step is due up to ``until``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntkstats as nts
    >>> model = nts.as_model(lambda w, x: x @ w)
    >>> w, probe = jnp.ones((3, 2)), nts.Probe(jnp.eye(3))
    >>> program = nts.collectors.bind(model, w, probe, nts.collectors.param_norm())
    >>> watch = nts.watch(program, model, nts.RecordAt.every(4), until=8)
    >>> def step(carry, i):
    ...     w, watched = carry
    ...     watched = watch.measure_if(watched, i, w)
    ...     return (0.5 * w, watched), None
    >>> (w, watched), _ = jax.lax.scan(step, (w, watch.init()), jnp.arange(8))
    >>> records, steps = watch.results(watched)
    >>> steps.tolist(), [round(float(norm), 2) for norm in records["param_norm"]]
    ([0, 4], [2.45, 0.15])
    """
    members = [field.name for field in program.fields.values() if "member" in field.dims]
    if members:
        message = (
            f"watch was given a program for an ensemble (field {members[0]!r} has a member axis); "
            "expected one for a single member. Bind without members= and vmap the loop."
        )
        raise RecordingError(message)
    if program.precision != "float32":
        message = (
            f"watch was given a program in {program.precision}; expected float32, since a loop on "
            "the device cannot change its precision. Use a Recorder between chunks of the loop."
        )
        raise RecordingError(message)
    steps = at.points(until)
    if len(steps) == 0:
        message = f"{at} has no step up to until={until}; expected at least one."
        raise RecordingError(message)
    return Watch(program, model, steps)


def _as_start(start: Any) -> int:
    try:
        number = operator.index(start)
    except (TypeError, jax.errors.TracerIntegerConversionError):
        number = -1
    if number < 0:
        message = (
            f"start={start!r} was given; expected a Python integer of 0 or more, known before the "
            "loop is compiled. Inside another loop on the device use measure_if."
        )
        raise RecordingError(message)
    return number


def find(tree: PyTree) -> Watched:
    """The one `Watched` in a pytree.

    Raises
    ------
    RecordingError
        There is none, or more than one.
    """
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Watched))
    found = [leaf for leaf in leaves if isinstance(leaf, Watched)]
    if len(found) != 1:
        message = (
            f"{len(found)} watched states were found in a {type(tree).__name__}; expected one. "
            "Pass what watch.init returned, or the optimiser state that holds it."
        )
        raise RecordingError(message)
    return found[0]
