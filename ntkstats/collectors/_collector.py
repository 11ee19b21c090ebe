"""What a collector is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ntkstats.collectors._binding import Binding
from ntkstats.collectors._quantities import Quantity, Reading
from ntkstats.collectors._types import Snapshot
from ntkstats.typing import Array, PyTree, Record


class Label(NamedTuple):
    """How one entry of a collector's record is presented.

    Attributes
    ----------
    long_name, units
        For axis labels.
    dims
        A name for each axis.
    attrs
        JSON-serialisable facts (estimator, convention, ...).
    coords
        Labels along a dimension.
    """

    long_name: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = {}
    coords: Mapping[str, tuple[str, ...]] = {}


class Moment(NamedTuple):
    """What `Collector.measure` sees.

    Attributes
    ----------
    binding, reading
        Static facts, and the quantities of this moment (``reading.get(quantity)``).
    head
        The model output this instance measures.
    snapshot
        Step, parameters, state, extras.
    """

    binding: Binding
    reading: Reading
    head: str
    snapshot: Snapshot

    def get(self, quantity: Quantity) -> Any:
        """The value of a quantity at this moment."""
        return self.reading.get(quantity)


def _nothing_required(head: str) -> tuple[Quantity, ...]:  # noqa: ARG001
    return ()


def _no_carry(binding: Binding, head: str, key: Array) -> PyTree:  # noqa: ARG001
    return ()


@dataclass(frozen=True, eq=False)
class Collector:
    """One thing to measure, before it is bound to a model.

    Make one with the functions of [`ntkstats.collectors`][ntkstats.collectors], or from scratch:
    a pure ``measure`` and labels for what it returns are enough.

    Attributes
    ----------
    name
        Its name in records, messages and schedules.
    measure
        ``measure(moment, carry) -> (carry, {field: array})``; pure, fixed shapes.
    labels
        ``labels(binding, head) -> {field: Label}``, one for each field that `measure` returns.
    requires
        ``requires(head) -> quantities`` that `measure` gets from the moment.
    init
        ``init(binding, head, key) -> carry``: arrays remembered between records.
    head
        Model output to measure; None stands for the only one, or for each of several if
        `per_head`.
    per_head
        Whether the collector may be repeated over the heads of a model.
    uses_head
        False for collectors that look at parameters only.
    probe
        Name of the probe, or None for the first one.
    prefix
        Put before the field names: ``prefix="wide"`` gives ``wide_entropy``.
    at
        A schedule of its own; None follows the recorder's.
    extras
        Names of keyword arguments that the loop has to pass to the recorder.
    fixed_probe
        True for a collector that compares records through time, which means nothing on inputs
        that change: it is refused on a probe from
        [`Probe.from_extra`][ntkstats.models.Probe.from_extra].
    """

    name: str
    measure: Callable[[Moment, PyTree], tuple[PyTree, Record]]
    labels: Callable[[Binding, str], Mapping[str, Label]]
    requires: Callable[[str], tuple[Quantity, ...]] = _nothing_required
    init: Callable[[Binding, str, Array], PyTree] = _no_carry
    head: str | None = None
    per_head: bool = False
    uses_head: bool = True
    probe: str | None = None
    prefix: str | None = None
    at: Any = None
    extras: tuple[str, ...] = field(default=())
    fixed_probe: bool = False


def own_name(default: str, name: str | None, probe: str | None = None) -> str:
    """What a collector is called: as the user says, else by its kind and probe."""
    return name or (default if probe is None else f"{default}_{probe}")
