"""From instances of collectors to one pure program in which nothing is computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ntkstats._compat import x64_enabled
from ntkstats._lanes import map_members, prefers_unrolled
from ntkstats.collectors._binding import Binding
from ntkstats.collectors._collector import Collector, Label, Moment
from ntkstats.collectors._instances import Instance, needed
from ntkstats.collectors._live import check_live, live_arrays
from ntkstats.collectors._quantities import Quantity, Reading
from ntkstats.collectors._turns import Turns
from ntkstats.collectors._types import Field, Program, Snapshot
from ntkstats.errors import CollectorError, NtkStatsError, PrecisionError
from ntkstats.kernels import KernelPlan
from ntkstats.models import Model
from ntkstats.typing import Array, PyTree, Record


@dataclass(frozen=True, eq=False)
class Builder:
    """Everything that programs over subsets of the collectors share."""

    model: Model
    bindings: dict[str, Binding]
    instances: tuple[Instance, ...]
    prepared: dict[tuple[str, Quantity], Any]
    members: int | None
    precision: str
    example: Snapshot

    def program(self, names: frozenset[str]) -> Program:
        """The program restricted to the named collectors."""
        known = tuple(dict.fromkeys(i.collector.name for i in self.instances))
        unknown = names - set(known)
        if unknown or not names:
            message = f"Collectors {sorted(unknown) or 'none'} selected; this program has {known}."
            raise CollectorError(message)
        chosen = tuple(i for i in self.instances if i.collector.name in names)
        measured = {i.probe for i in chosen}
        wanted = {n: frozenset(needed(chosen, n)) for n in self.bindings if n in measured}
        probes = tuple(self.bindings[name].probe for name in wanted)

        def update_one(
            carry: PyTree, snapshot: Snapshot, turns: Turns | None = None
        ) -> tuple[PyTree, Record]:
            turns = Turns() if turns is None else turns
            readings = {n: self._reading(n, snapshot, wanted[n], turns) for n in wanted}
            carry = dict(carry)
            record: Record = {}
            for instance in chosen:
                moment = Moment(
                    self.bindings[instance.probe],
                    readings[instance.probe],
                    instance.head,
                    snapshot,
                )
                with _naming(instance.collector):
                    after, entries = instance.collector.measure(moment, carry[instance.id])
                carry[instance.id] = after
                record |= {instance.field(k): jnp.asarray(v) for k, v in entries.items()}
            return carry, record

        def init_one(key: Array) -> PyTree:
            return {
                i.id: i.collector.init(self.bindings[i.probe], i.head, jax.random.fold_in(key, n))
                for n, i in enumerate(self.instances)
            }

        init, measure = self._over_members(init_one, update_one)

        def update(carry: PyTree, snapshot: Snapshot) -> tuple[PyTree, Record]:
            check_live(probes, snapshot.extras, self.members)
            return measure(carry, snapshot)

        checked = self._guard_precision(update)
        if names == frozenset(known):
            fields = self._fields(init, checked)
        else:
            mine = {name for i in chosen for name in i.names(self.bindings)}
            fields = {k: v for k, v in self.whole.fields.items() if k in mine}
        return Program(
            init=init,
            update=checked,
            fields=fields,
            collectors=tuple(n for n in known if n in names),
            attrs=self._attrs(chosen),
            precision=self.precision,
            select=self.program,
        )

    def _reading(
        self, name: str, snapshot: Snapshot, planned: frozenset[Quantity], turns: Turns
    ) -> Reading:
        binding = self.bindings[name]
        probe = binding.probe
        arrays = {"x": probe.x, "y": probe.y, "weight": probe.weight}
        if probe.extra is None:
            # Without the barrier XLA folds computations on the probe, a constant, when compiling.
            arrays = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, arrays))
        else:
            arrays["x"], arrays["y"] = live_arrays(probe, snapshot.extras[probe.extra])
        memory: dict[Quantity, Any] = {}

        def get(quantity: Quantity) -> Any:
            if quantity not in memory:
                key = (name, quantity)
                if key not in self.prepared:
                    message = f"A collector reads {quantity} without requiring it; add it there."
                    raise CollectorError(message)
                memory[quantity] = quantity.compute(self.prepared[key], binding, reading)
            return memory[quantity]

        reading = Reading(
            snapshot.params, snapshot.state, **arrays, get=get, planned=planned, turns=turns
        )
        return reading

    def _over_members(self, init_one: Any, update_one: Any) -> tuple[Any, Any]:
        if self.members is None:
            return init_one, update_one
        members = self.members
        first = next(iter(self.bindings.values()))
        x = jax.tree.map(lambda leaf: leaf[:1], first.probe.x)
        unroll = prefers_unrolled(self.model.apply, first.params, first.state, x)

        def init(key: Array) -> PyTree:
            return jax.vmap(init_one)(jax.random.split(key, members))

        def update(carry: PyTree, snapshot: Snapshot) -> tuple[PyTree, Record]:
            step, params, state, extras = snapshot
            # Members that are unrolled into one program take turns as well.
            turns = Turns() if unroll else None

            def one(carry: PyTree, params: Any, state: Any, extras: Any) -> Any:
                return update_one(carry, Snapshot(step, params, state, extras), turns)

            args = (carry, params, state, dict(extras))
            return map_members(one, *args, in_axes=(0, 0, 0, 0), unroll=unroll)

        return init, update

    def _guard_precision(self, update: Any) -> Any:
        if self.precision != "float64":
            return update

        def guarded(carry: PyTree, snapshot: Snapshot) -> tuple[PyTree, Record]:
            if not x64_enabled():
                message = (
                    "This program was bound with precision='float64' and is being traced in "
                    "float32. Call it through ntkstats.collectors.run_on_host, outside jit, scan "
                    "and vmap."
                )
                raise PrecisionError(message)
            return update(carry, snapshot)

        return guarded

    @cached_property
    def whole(self) -> Program:
        """The program of all collectors."""
        return self.program(frozenset(i.collector.name for i in self.instances))

    def _fields(self, init: Any, update: Any) -> dict[str, Field]:
        shapes = jax.eval_shape(
            lambda key, snapshot: update(init(key), snapshot)[1], jax.random.key(0), self.example
        )
        lead = () if self.members is None else ("member",)
        fields: dict[str, Field] = {}
        for instance in self.instances:
            binding = self.bindings[instance.probe]
            for short, label in instance.collector.labels(binding, instance.head).items():
                name = instance.field(short)
                shape = shapes[name]
                fields[name] = Field(
                    name=name,
                    dims=(*lead, *label.dims),
                    shape=tuple(shape.shape),
                    dtype=str(shape.dtype),
                    long_name=_qualified(label.long_name, instance),
                    units=label.units,
                    attrs=_field_attrs(instance, label),
                    coords=dict(label.coords),
                )
        unlabelled = set(shapes) - set(fields)
        if unlabelled:
            message = f"Fields {sorted(unlabelled)} were measured but have no label."
            raise CollectorError(message)
        return _distinct_dims(fields)

    def _attrs(self, chosen: tuple[Instance, ...]) -> dict[str, Any]:
        first = next(iter(self.bindings.values()))
        plans = {
            f"{name}/{plan.task.head}/{plan.task.outputs}": plan.summary
            for (name, _), plan in self.prepared.items()
            if isinstance(plan, KernelPlan)
        }
        return {
            "model": self.model.name,
            "covers": self.model.covers,
            "coupled": self.model.coupled,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(first.params)),
            "heads": {head: list(s.shape[1:]) for head, s in first.heads.items()},
            "probes": {name: _probe_facts(b) for name, b in self.bindings.items()},
            "collectors": sorted({i.collector.name for i in chosen}),
            "members": self.members,
            "precision": self.precision,
            "kernel_plans": plans,
        }


@contextmanager
def _naming(collector: Collector) -> Iterator[None]:
    """Say whose code it was that failed."""
    try:
        yield
    except NtkStatsError:
        raise
    except Exception as error:
        message = (
            f"collector {collector.name!r} failed while it was traced: {type(error).__name__}: "
            f"{error} Its measure function has to work on arrays of the shapes that the probe and "
            "the model give; ntkstats.testing.check_collector tells more."
        )
        raise CollectorError(message) from error


def _probe_facts(binding: Binding) -> dict[str, Any]:
    """What the run says of a probe; that of a live one names the extra instead of a content."""
    probe = binding.probe
    facts = {"n": probe.n, "hash": probe.hash}
    return facts if probe.extra is None else {**facts, "live": True, "extra": probe.extra}


def _distinct_dims(fields: dict[str, Field]) -> dict[str, Field]:
    """Dimensions of one name but different lengths or labels get their length as a suffix."""
    meanings: dict[str, set[Any]] = {}
    for f in fields.values():
        for dim, size in zip(f.dims, f.shape, strict=True):
            meanings.setdefault(dim, set()).add((size, f.coords.get(dim)))

    def rename(f: Field) -> Field:
        new = {
            dim: f"{dim}_{size}" if len(meanings[dim]) > 1 else dim
            for dim, size in zip(f.dims, f.shape, strict=True)
        }
        coords = {new[dim]: values for dim, values in f.coords.items()}
        return replace(f, dims=tuple(new[dim] for dim in f.dims), coords=coords)

    return {name: rename(f) for name, f in fields.items()}


def _qualified(long_name: str, instance: Instance) -> str:
    """The label of a figure's axis, with what tells the field from its namesakes."""
    marks = instance.suffix.strip("_").replace("_", ", ")
    return f"{long_name} ({marks})" if marks else long_name


def _field_attrs(instance: Instance, label: Label) -> dict[str, Any]:
    own = {"collector": instance.collector.name, "probe": instance.probe}
    if instance.collector.uses_head:
        own["head"] = instance.head
    return {**own, **label.attrs}
