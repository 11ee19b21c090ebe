"""What a collector says about itself against what it does, seen while it is traced once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.collectors import Label, Moment, Program
from ntkstats.errors import CollectorError, ContractError, PrecisionError
from ntkstats.testing._system import System
from ntkstats.typing import PyTree, Record

RESERVED = frozenset({"step", "member", "run", "seed"})
"""Axes and coordinates that the store and the readers add."""


def check_declaration(system: System) -> None:
    """Bind the collector while its declarations are compared with what `measure` does."""
    collector = system.collector
    if not isinstance(collector.name, str) or not collector.name:
        system.fail("name", f"it is called {collector.name!r}; give it a non-empty string")
    missing = [name for name in collector.extras if name not in system.extras]
    if missing:
        system.fail(
            "extras",
            f"it asks the loop for {missing}, which are not known here; pass an example, "
            f"check_collector(..., extras={{{missing[0]!r}: ...}})",
        )
    _check_quantities(system)
    bind_or_explain(system, replace(collector, measure=watched(system)))


def bind_or_explain(
    system: System, collectors: Any = None, *, clause: str = "bind", **options: Any
) -> Program:
    """Bind, and name the clause where that fails."""
    try:
        return system.bind(collectors, **options)
    except (ContractError, PrecisionError):
        raise
    except Exception as error:
        unread = isinstance(error, CollectorError) and "without requiring" in str(error)
        system.fail(
            "requires" if unread else clause,
            f"binding it to {system.model.name} failed with {type(error).__name__}: {error}",
            cause=error,
        )


def _check_quantities(system: System) -> None:
    """Whatever is required must be a quantity, and the same one whenever it is asked for."""
    for head in system.heads():
        first, second = (system.collector.requires(head) for _ in range(2))
        if not isinstance(first, tuple):
            system.fail("requires", f"it gave {type(first).__name__}; return a tuple of quantities")
        for quantity in first:
            methods = ("requires", "prepare", "compute")
            if not all(callable(getattr(quantity, method, None)) for method in methods):
                system.fail(
                    "requires",
                    f"{quantity!r} is no quantity; expected values such as "
                    "nts.collectors.Kernel(head), or your own frozen dataclasses with requires, "
                    "prepare and compute",
                )
        if first != second or not _hashable(first):
            system.fail(
                "requires",
                f"two calls gave {first} and {second}, which are not equal or not hashable, so "
                "they would be computed again for everybody who asks; use frozen dataclasses",
            )


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def watched(system: System) -> Callable[[Moment, PyTree], tuple[PyTree, Record]]:
    """`measure`, with every declaration checked against what went in and came out."""

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        try:
            result = system.collector.measure(moment, carry)
        except jax.errors.JAXTypeError as error:
            system.fail(
                "jit",
                f"measure asks for a number that is not known yet: {_first_line(error)} Use "
                "jnp instead of numpy, float() and if; jnp.where instead of branches",
                cause=error,
            )
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            system.fail(
                "fields", f"measure gave {type(result).__name__}; return (carry, {{field: array}})"
            )
        after, entries = result
        _check_carry(system, carry, after)
        with jax.ensure_compile_time_eval():  # labels are made on the host, where numbers are known
            labels = system.collector.labels(moment.binding, moment.head)
        _check_fields(system, labels, entries)
        return after, dict(entries)

    return measure


def _check_carry(system: System, before: PyTree, after: PyTree) -> None:
    old: Any = jax.tree.structure(before)  # JAX does not type its tree definitions
    new: Any = jax.tree.structure(after)
    if old != new:
        system.fail("carry", f"init gave {old} and measure gave {new}; return what init gives")
    pairs = zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, a), b in pairs:
        where = jax.tree_util.keystr(path) or "the carry"
        if not (_is_number(a) and _is_number(b)):
            system.fail(
                "carry", f"{where} is {type(a).__name__}; expected arrays, as in a checkpoint"
            )
        mine, other = ((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in (a, b))
        if mine != other:
            system.fail(
                "carry",
                f"{where} is {_typed(*mine)} from init and {_typed(*other)} from measure; "
                "expected fixed shapes and dtypes",
            )


def _check_fields(system: System, labels: Mapping[str, Label], entries: Mapping[str, Any]) -> None:
    if set(labels) != set(entries):
        system.fail(
            "fields",
            f"labels declares {sorted(labels)} and measure returns {sorted(entries)}; expected "
            "one label for each entry",
        )
    dims = {dim for label in labels.values() for dim in label.dims}
    for name, label in labels.items():
        _check_name(system, name, dims)
        if not _is_number(entries[name]):
            system.fail(
                "fields", f"{name!r} is {type(entries[name]).__name__}; return numbers or arrays"
            )
        shape, dtype = jnp.shape(entries[name]), jnp.result_type(entries[name])
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            system.fail("fields", f"{name!r} is a PRNG key; only numbers can be recorded")
        _check_label(system, name, label, shape)


def _check_name(system: System, name: str, dims: set[str]) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        system.fail(
            "names", f"a field is called {name!r}; expected a Python name, so that ds.name works"
        )
    if name in RESERVED | dims:
        taken = "an axis of this collector" if name in dims else "an axis or coordinate of a run"
        system.fail("names", f"field {name!r} is also {taken}; call one of them otherwise")


def _check_label(system: System, name: str, label: Label, shape: tuple[int, ...]) -> None:
    if len(label.dims) != len(shape):
        system.fail(
            "dims",
            f"field {name!r} has shape {shape} and dims {tuple(label.dims)}; expected one name for "
            "each axis",
        )
    if len(set(label.dims)) < len(label.dims) or RESERVED & set(label.dims):
        system.fail(
            "dims",
            f"field {name!r} has dims {tuple(label.dims)}; expected different names, none of "
            f"{sorted(RESERVED)}, which the library adds",
        )
    sizes = dict(zip(label.dims, shape, strict=True))
    for dim, values in label.coords.items():
        if dim not in sizes or len(values) != sizes[dim]:
            expected = f"{sizes[dim]} of them" if dim in sizes else f"one of {tuple(sizes)}"
            system.fail(
                "dims",
                f"field {name!r} has {len(values)} labels along {dim!r}; expected {expected}",
            )
    if not label.long_name or not label.units:
        system.fail(
            "labels",
            f"field {name!r} has long_name={label.long_name!r} and units={label.units!r}; figures "
            "need both ('1' for pure numbers)",
        )


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _typed(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{dtype}{list(shape)}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."
