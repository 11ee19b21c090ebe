"""A bound program on the host: what it remembers, and its compiled subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ntkstats._compat import is_tracer
from ntkstats.collectors import Collector, Field, Program, Snapshot, bind, init_on_host, run_on_host
from ntkstats.collectors._live import extras_needed
from ntkstats.errors import ParamsError, RecordingError
from ntkstats.models import Model, Probe
from ntkstats.recording.store._arrays import to_numpy
from ntkstats.typing import Array, Params, PyTree, Record, State


class Meter:
    """Measures subsets of the collectors on what the loop holds.

    Parameters are those of `ntkstats.collectors.bind`; ``extras`` holds everything that the loop
    passed along with the first state.
    """

    def __init__(
        self,
        model: Model,
        obj: Any,
        probes: Probe | Sequence[Probe],
        collectors: Sequence[Collector],
        *,
        key: Array,
        members: int | None,
        precision: str | None,
        budget_bytes: int | None,
        extras: Mapping[str, Any],
    ) -> None:
        self._model = model
        self._members = members
        # What is no probe is refused by bind.
        listed = (probes,) if isinstance(probes, Probe) else tuple(probes)
        sound = all(isinstance(probe, Probe) for probe in listed)
        self._wants = extras_needed(collectors, listed if sound else ())
        self.wanted_extras = frozenset(e for names in self._wants.values() for e in names)
        """Names of what collectors and live probes ask the loop for."""
        self._differentiating: set[frozenset[str]] = set()
        params, _ = self._split(obj, glance=True)
        self.shapes, self._signature = shapes_of(params), _signature(params)
        bind_key, carry_key = jax.random.split(key)
        self.program = bind(
            model,
            obj,
            probes,
            collectors,
            key=bind_key,
            members=members,
            precision=precision,
            budget_bytes=budget_bytes,
            extras=self._wanted(frozenset(self._wants), extras),
        )
        self._subsets = {frozenset(self.program.collectors): self.program}
        self.measured: set[frozenset[str]] = set()
        """Sets of collectors that were measured, hence compiled."""
        self.carry = init_on_host(self.program, carry_key)

    def subset(self, names: frozenset[str]) -> Program:
        """The program restricted to ``names``; the same one every time, so it compiles once."""
        if names not in self._subsets:
            self._subsets[names] = self.program.select(names)
        return self._subsets[names]

    def fields(self, names: frozenset[str]) -> tuple[Field, ...]:
        """What the named collectors record."""
        return tuple(self.subset(names).fields.values()) if names else ()

    def lacking(self, names: frozenset[str], extras: Mapping[str, Any]) -> dict[str, list[str]]:
        """``{collector: extras that it needs and the loop did not pass}``."""
        needs = {name: [e for e in self._wants[name] if e not in extras] for name in names}
        return {name: missing for name, missing in needs.items() if missing}

    def measure(
        self, names: frozenset[str], step: int, obj: Any, extras: Mapping[str, Any]
    ) -> tuple[PyTree, dict[str, np.ndarray]]:
        """Measure on ``obj`` and wait until the numbers are on the host.

        Returns
        -------
        carry
            What `carry` is to become.
        arrays
            ``{field: array}``.

        Raises
        ------
        ParamsError
            The parameters are not those that the program was bound to.
        """
        carry, record = self.dispatch(names, step, obj, extras)
        return carry, {name: to_numpy(name, value) for name, value in record.items()}

    def dispatch(
        self, names: frozenset[str], step: int, obj: Any, extras: Mapping[str, Any]
    ) -> tuple[PyTree, Record]:
        """`measure` without waiting: the numbers may still be on their way.

        The caller may donate the buffers of ``obj`` at once (the runtime lets what was
        dispatched earlier read them first) and write to its NumPy arrays.
        """
        wanted = self._wanted(names, extras)
        self.measured.add(names)
        if self._model.glance is not None and names not in self._differentiating:
            at_a_glance = self._snapshot(step, self._split(obj, glance=True), wanted)
            try:
                return run_on_host(self.subset(names), self.carry, at_a_glance)
            except Exception:
                # While JAX traces, hence once. Besides DerivativeNeededError it is what a plan
                # for the whole state raises; any other error comes again below.
                self._differentiating.add(names)
        return run_on_host(
            self.subset(names), self.carry, self._snapshot(step, self._split(obj), wanted)
        )

    def _snapshot(
        self, step: int, known: tuple[Params, State], extras: Mapping[str, Any]
    ) -> Snapshot:
        if _signature(known[0]) != self._signature:
            check_shapes(self.shapes, shapes_of(known[0]))
        return Snapshot(step, *jax.tree.map(_owned, (*known, extras)))

    def wait_for(self, obj: Any) -> None:
        """Return when ``obj`` is computed, so that its time is not taken for ours."""
        jax.block_until_ready(obj)

    def _split(self, obj: Any, *, glance: bool = False) -> tuple[Params, State]:
        split = self._model.glance if glance and self._model.glance else self._model.split
        # Looked for in the parts, since flattening the module of an nnx loop takes longer than
        # splitting it; a split that fails may have failed for tracers.
        try:
            params, state = split(obj)
        except Exception:
            self._refuse_tracers(obj)
            raise
        self._refuse_tracers((params, state))
        return params, state

    @staticmethod
    def _refuse_tracers(tree: PyTree) -> None:
        if any(is_tracer(leaf) for leaf in jax.tree.leaves(tree)):
            msg = (
                "the recorder was called while JAX traces the training step (inside jit, scan or "
                "vmap); call it from the Python loop, or scan with the program that "
                "recorder.bind(obj) returns and store the result with recorder.extend"
            )
            raise RecordingError(msg)

    def _wanted(self, names: frozenset[str], extras: Mapping[str, Any]) -> dict[str, Any]:
        """The extras that the named collectors ask for, as arrays, so that nothing retraces."""
        wanted = sorted({e for name in names for e in self._wants[name]} & extras.keys())
        return {name: jax.tree.map(self._as_array, extras[name]) for name in wanted}

    def _as_array(self, leaf: Any) -> Any:
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if self._members is not None and array.ndim == 0:
            return np.broadcast_to(np.asarray(array), (self._members,))
        return array


def _owned(leaf: Any) -> Any:
    """The leaf, copied if its owner could change it while it is still being read."""
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf


def shapes_of(params: Params) -> dict[str, list[Any]]:
    """``{path of a parameter: [shape, dtype]}`` as JSON."""
    return {
        jax.tree_util.keystr(path): [list(np.shape(leaf)), str(jax.numpy.result_type(leaf))]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _signature(params: Params) -> tuple[Any, ...]:
    """Equal for parameters of equal names, shapes and dtypes; cheaper than `shapes_of`."""
    leaves, structure = jax.tree.flatten(params)
    return structure, *((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves)


def check_shapes(bound: Mapping[str, list[Any]], given: Mapping[str, list[Any]]) -> None:
    """Raise ParamsError, naming the first parameter that differs."""
    if bound == given:
        return
    for path in [*bound, *given]:
        was, now = bound.get(path, "absent"), given.get(path, "absent")
        if was != now:
            msg = (
                f"parameter {path} is {now}, but the recorder was bound to {was}; "
                f"pass the parameters of the model that the recorder was made for"
            )
            raise ParamsError(msg)
