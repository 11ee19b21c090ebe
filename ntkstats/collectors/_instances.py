"""One instance for each collector, probe and head, and the flat names of its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ntkstats.collectors._binding import Binding
from ntkstats.collectors._collector import Collector
from ntkstats.collectors._quantities import Quantity, closure
from ntkstats.errors import CollectorError, DuplicateNameError, HeadError
from ntkstats.models import head_of


@dataclass(frozen=True, eq=False)
class Instance:
    """One collector on one head of one probe."""

    collector: Collector
    head: str
    probe: str
    suffix: str
    id: str

    def field(self, name: str) -> str:
        """The flat record name of one of the collector's fields."""
        prefix = f"{self.collector.prefix}_" if self.collector.prefix else ""
        return f"{prefix}{name}{self.suffix}"

    def names(self, bindings: dict[str, Binding]) -> tuple[str, ...]:
        """Record names of all its fields."""
        labels = self.collector.labels(bindings[self.probe], self.head)
        return tuple(self.field(short) for short in labels)


def expand(collectors: tuple[Collector, ...], bindings: dict[str, Binding]) -> tuple[Instance, ...]:
    """One instance for each collector, probe and head, with distinct names and fields."""
    default = next(iter(bindings))
    instances: list[Instance] = []
    for collector in collectors:
        probe = collector.probe or default
        if probe not in bindings:
            message = (
                f"Collector {collector.name!r} wants probe {probe!r}; there are {sorted(bindings)}."
            )
            raise CollectorError(message)
        heads = bindings[probe].heads
        chosen: tuple[str, ...]
        if not collector.uses_head:
            chosen = (next(iter(heads)),)
        elif collector.head is None and collector.per_head:
            chosen = tuple(heads)
        else:
            chosen = (_head(collector, heads),)
        for head in chosen:
            suffix = f"_{head}" if len(heads) > 1 and collector.uses_head else ""
            suffix += f"_{probe}" if probe != default else ""
            identity = f"{collector.name}{suffix}"
            instances.append(Instance(collector, head, probe, suffix, identity))
    _check_distinct(instances, bindings)
    return tuple(instances)


def _head(collector: Collector, heads: dict[str, Any]) -> str:
    try:
        return head_of(heads, collector.head)
    except HeadError as error:
        message = f"Collector {collector.name!r}: {error}"
        raise HeadError(message) from error


def _check_distinct(instances: list[Instance], bindings: dict[str, Binding]) -> None:
    seen: dict[str, str] = {}
    for instance in instances:
        fields = (f"field {name!r}" for name in instance.names(bindings))
        for name in (f"collector {instance.id!r}", *fields):
            if name in seen:
                message = (
                    f"Collectors {seen[name]!r} and {instance.collector.name!r} would both write "
                    f"{name}. Give one of them its own name=, which prefixes its fields."
                )
                raise DuplicateNameError(message)
            seen[name] = instance.collector.name


def needed(instances: tuple[Instance, ...], probe: str) -> tuple[Quantity, ...]:
    wanted = tuple(
        quantity
        for instance in instances
        if instance.probe == probe
        for quantity in instance.collector.requires(instance.head)
    )
    return closure(wanted)
