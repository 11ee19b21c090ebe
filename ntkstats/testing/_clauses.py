"""How a collector has to behave, clause by clause; each raises a ContractError."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import numpy as np

from ntkstats._compat import host_callbacks, keeps_tracers, side_effects, traces_alike
from ntkstats._lanes import tree_index, tree_stack
from ntkstats.collectors import Collector, Program, Snapshot, init_on_host, run_on_host
from ntkstats.errors import ContractError, DuplicateNameError, PrecisionError
from ntkstats.testing._declaration import bind_or_explain, watched
from ntkstats.testing._system import System, differing, run, wide
from ntkstats.typing import Array

ROUNDING = 2e-4
"""Relative differences of float32 numbers that were computed in another order."""

SINGLE_PRECISION = 5e-3
"""Relative differences between float32 and float64."""


@dataclass(frozen=True, eq=False)
class Case:
    """One bound collector under examination.

    Attributes
    ----------
    system
        The collector and its surroundings.
    undefined_at_first, symmetric, beside
        As for `check_collector`.
    """

    system: System
    undefined_at_first: frozenset[str]
    symmetric: bool | frozenset[str]
    beside: tuple[Collector, ...]

    @cached_property
    def program(self) -> Program:
        """The collector alone, in float32."""
        return bind_or_explain(self.system)

    @cached_property
    def snapshots(self) -> list[Snapshot]:
        """The moments at which it measures."""
        return self.system.snapshots()

    @cached_property
    def records(self) -> list[dict[str, Array]]:
        """What a Python loop of jitted updates records."""
        with explained(self.system, "jit"):
            return run(self.program, self.snapshots)[1]


@contextlib.contextmanager
def explained(system: System, clause: str) -> Iterator[None]:
    """Name the clause where running fails with somebody else's error."""
    try:
        yield
    except ContractError:
        raise
    except Exception as error:
        first = str(error).partition("\n")[0]
        system.fail(clause, f"it failed with {type(error).__name__}: {first}", cause=error)


def check_pure(case: Case) -> None:
    """No calls to the host, no effects, the same operations and numbers whenever asked."""
    system, program = case.system, case.program
    carry, snapshot = program.init(jax.random.key(0)), case.snapshots[1]
    calls = host_callbacks(program.update, carry, snapshot)
    effects = side_effects(program.update, carry, snapshot)
    if calls or effects:
        system.fail(
            "pure",
            f"measure reaches outside while it runs ({', '.join([*calls, *effects])}); return what "
            "you want to see as a field, and print from the recorder's sinks",
        )
    if keeps_tracers(program.update, carry, snapshot):
        system.fail(
            "pure",
            "measure keeps values outside (in a list, an attribute, a global), where they mean "
            "nothing once it has returned; put them into the carry or the record",
        )
    if not traces_alike(program.update, carry, snapshot):
        system.fail(
            "pure",
            "measure is another function each time it is traced; it probably draws from "
            "numpy.random, reads a clock or changes a Python variable. Draw with a key that init "
            "puts into the carry",
        )
    with explained(system, "jit"):
        first, second = (program.jitted(carry, snapshot)[1] for _ in range(2))
    what = differing(first, second, tolerance=0.0)
    if what is not None:
        system.fail("pure", f"for the same moment {what}; expected the same numbers")


def check_finite(case: Case) -> None:
    """Real numbers that are finite on a network in which nothing is degenerate."""
    for i, record in enumerate(case.records):
        for name, value in record.items():
            expected = i > 0 or name not in case.undefined_at_first
            if expected and not np.isfinite(wide(value)).all():
                hint = (
                    "; if it is undefined at the first record by definition, say so with "
                    f"undefined_at_first=[{name!r}]"
                    if i == 0
                    else ""
                )
                case.system.fail(
                    "finite",
                    f"{name!r} is not finite at record {i} of {case.system.model.name}{hint}",
                )


def check_scan(case: Case) -> None:
    """A scan over the moments gives what a Python loop gives."""
    with explained(case.system, "scan"):
        carry = case.program.init(jax.random.key(0))
        _, scanned = jax.lax.scan(case.program.update, carry, tree_stack(list(case.snapshots)))
    for i, record in enumerate(case.records):
        what = differing(record, tree_index(scanned, i), tolerance=ROUNDING)
        if what is not None:
            case.system.fail(
                "scan", f"in a Python loop and in lax.scan, record {i}: {what}; expected the same"
            )


def check_vmap(case: Case) -> None:
    """Members of an ensemble are measured as each of them alone."""
    # The first member is not what the collector was bound to alone.
    system, shots = case.system, case.snapshots[::-1]
    params, state, extras = tree_stack([tuple(shot[1:]) for shot in shots])
    program = bind_or_explain(
        system, clause="vmap", obj=(params, state), extras=extras, members=len(shots)
    )
    with explained(system, "vmap"):
        carries = program.init(jax.random.key(0))
        _, together = program.jitted(carries, Snapshot(0, params, state, extras))
    for i, shot in enumerate(shots):
        _, alone = case.program.jitted(tree_index(carries, i), shot._replace(step=0))
        what = differing(alone, tree_index(together, i), tolerance=ROUNDING)
        if what is not None:
            system.fail(
                "vmap",
                f"alone and as member {i} of an ensemble {what}; expected the same. Does measure "
                "use leading axes, or the parameters of the binding instead of the snapshot's?",
            )


def check_precision(case: Case) -> None:
    """float64 gives the same numbers more exactly, or is refused by a PrecisionError."""
    system = replace(case.system, context=" in float64")
    collector = replace(system.collector, measure=watched(system))
    try:
        program = bind_or_explain(system, collector, clause="precision", precision="float64")
        with explained(system, "precision"):
            carry, records = init_on_host(program, jax.random.key(0)), []
            for shot in case.snapshots:
                carry, record = run_on_host(program, carry, shot)
                records.append(record)
    except PrecisionError:
        return
    for i, (single, double) in enumerate(zip(case.records, records, strict=True)):
        what = differing(single, double, tolerance=SINGLE_PRECISION)
        if what is not None:
            system.fail(
                "precision",
                f"in float32 and float64, record {i}: {what}; expected the same up to rounding. "
                "Is a difference of nearly equal numbers taken?",
            )


def check_order(case: Case) -> None:
    """Fields that are declared symmetric do not depend on the order of the samples."""
    names = set(case.program.fields) if case.symmetric is True else case.symmetric
    if not names:
        return
    assert not isinstance(names, bool)
    unknown = sorted(names - set(case.program.fields))
    if unknown:
        case.system.fail(
            "order", f"symmetric={unknown}, but its fields are {sorted(case.program.fields)}"
        )
    reordered = case.system.reordered()
    program = bind_or_explain(reordered, clause="order")
    with explained(case.system, "order"):
        _, other = run(program, reordered.snapshots())
    for ours, theirs in zip(case.records, other, strict=True):
        what = differing(_only(ours, names), _only(theirs, names), tolerance=ROUNDING)
        if what is not None:
            case.system.fail(
                "order", f"with the samples of the probe reversed {what}; expected the same"
            )


def check_heads(case: Case) -> None:
    """A collector for every head measures each as if it were the only one."""
    collector = case.system.collector
    if not (collector.uses_head and collector.per_head and collector.head is None):
        return
    if len(case.system.heads()) > 1:  # the given model has several, all measured above
        return
    twins = case.system.with_heads(first=1.0, second=2.0)
    with explained(twins, "heads"):
        _, (together, *_) = run(bind_or_explain(twins, clause="heads"), case.snapshots[:1])
    only = case.system.with_heads(output=2.0)
    with explained(only, "heads"):
        _, (twice, *_) = run(bind_or_explain(only, clause="heads"), case.snapshots[:1])
    for head, alone in (("first", case.records[0]), ("second", twice)):
        fields = {k.replace(f"_{head}", "", 1): v for k, v in together.items() if f"_{head}" in k}
        what = differing(alone, fields, tolerance=ROUNDING)
        if what is not None:
            case.system.fail(
                "heads",
                f"on one head alone and as {head!r} of two {what}; expected the same. Measure the "
                "head that measure, labels and requires are given",
            )


def check_neighbours(case: Case) -> None:
    """Next to other collectors it writes fields of its own, and the same numbers."""
    if not case.beside:
        return
    try:
        program = case.system.bind((case.system.collector, *case.beside))
    except DuplicateNameError as error:
        case.system.fail("names", str(error), cause=error)
    with explained(case.system, "names"):
        _, other = run(program, case.snapshots)
    for ours, theirs in zip(case.records, other, strict=True):
        what = differing(ours, _only(theirs, ours), tolerance=ROUNDING)
        if what is not None:
            case.system.fail(
                "names", f"alone and next to other collectors {what}; expected the same"
            )


def _only(record: dict[str, Array], names: Iterable[str]) -> dict[str, Array]:
    return {name: record[name] for name in record if name in set(names)}
