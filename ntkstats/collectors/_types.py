"""The values that collectors, programs and recorders exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax

from ntkstats.typing import Array, Params, PyTree, Record, State


class Snapshot(NamedTuple):
    """The training state at which a record is taken.

    Attributes
    ----------
    step
        Number of updates applied so far; 0 is the initialisation.
    params, state
        What `Model.split` gave.
    extras
        ``{name: array}`` that the loop passed along (loss, gradient norm, ...); they belong to
        the same parameters, that is, to the situation *before* the next update.
    """

    step: Array | int
    params: Params
    state: State
    extras: Mapping[str, Array]


@dataclass(frozen=True)
class Field:
    """The label of one entry of a record, from which the reader builds xarray variables.

    Attributes
    ----------
    name
        Flat, attribute-friendly name: ``"entropy"``, ``"trace_actor"``.
    dims
        One name for each axis of the entry, without the step axis; the first is ``"member"`` when
        the program was bound for an ensemble.
    shape, dtype
        Shape of one entry and its NumPy dtype name.
    long_name, units
        For axis labels; ``units`` is ``"1"`` for pure numbers and ``"nat"`` for entropies.
    attrs
        JSON-serialisable extras: convention, head, probe, collector, estimator, ...
    coords
        Labels along a dimension, e.g. ``{"layer": ("Dense_0", "Dense_1")}``.
    """

    name: str
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    long_name: str = ""
    units: str = "1"
    attrs: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Program:
    """Bound collectors as one pure pair of functions.

    Attributes
    ----------
    init
        ``init(key) -> carry``: what the collectors remember between records, a pytree of arrays
        of fixed shapes (checkpoint it with the training state).
    update
        ``update(carry, snapshot) -> (carry, record)``: pure; works under ``jit``, inside
        ``lax.scan`` and under ``vmap`` over an ensemble.
    fields
        ``{name: Field}``, one for each entry of the record, in the order of the record.
    collectors
        Names of the collectors, in order.
    attrs
        JSON-serialisable facts about the measurement (model, heads, probe hashes, conventions,
        precision, kernel plans): stored once with the run.
    precision
        ``"float32"`` or ``"float64"``; for the latter call `update` through
        `ntkstats.collectors.run_on_host`.
    select
        ``select(names) -> Program``: the same program restricted to those collectors. The carry
        keeps its structure (untouched entries pass through), so records of different subsets may
        follow each other with one carry.
    """

    init: Callable[[Array], PyTree]
    update: Callable[[PyTree, Snapshot], tuple[PyTree, Record]]
    fields: Mapping[str, Field]
    collectors: tuple[str, ...]
    attrs: Mapping[str, Any]
    precision: str
    select: Callable[[frozenset[str]], Program]

    @cached_property
    def jitted(self) -> Callable[[PyTree, Snapshot], tuple[PyTree, Record]]:
        """`update`, compiled; one compilation a program."""
        return jax.jit(self.update)
