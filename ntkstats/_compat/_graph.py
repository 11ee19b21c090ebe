"""Traced functions as graphs that may be read, extended and run.

A jaxpr is taken apart once, here: calls (``jit``, ``remat``, custom rules) are inlined, scans keep
their body as a graph of its own. Readers see names, shapes and operands, never JAX's own classes,
whose fields change between releases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat._tracing import is_tracer

# Calls that only wrap a jaxpr, under every name they have had, and where that jaxpr is kept.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_jvp_call_jaxpr": "fun_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_lin": "jaxpr",
}


@dataclass(frozen=True, eq=False)
class Variable:
    """A value that is not known when the graph is read.

    Attributes
    ----------
    shape, dtype
        Of the value.
    """

    shape: tuple[int, ...]
    dtype: Any

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the value; 0 for one without a width of its own (PRNG keys)."""
        return int(self.size * getattr(self.dtype, "itemsize", 0))


@dataclass(frozen=True, eq=False)
class Literal:
    """A value that the graph holds."""

    value: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return tuple(jnp.shape(self.value))


Atom: TypeAlias = Variable | Literal


@dataclass(eq=False)
class Equation:
    """One operation.

    Attributes
    ----------
    name
        Name of the primitive.
    params
        Its parameters.
    inputs, outputs
        What it reads and defines.
    bind
        Runs it on values; None for a scan.
    body
        Graph of one step of a scan: inputs are constants, carry and slices, outputs are carry and
        slices.
    """

    name: str
    params: dict[str, Any]
    inputs: list[Atom]
    outputs: list[Variable]
    bind: Callable[..., Sequence[Any]] | None = None
    body: Graph | None = None

    @property
    def n_consts(self) -> int:
        """Inputs of a scan that every step sees whole."""
        return int(self.params["num_consts"])

    @property
    def n_carry(self) -> int:
        """Values that a scan hands from step to step."""
        return int(self.params["num_carry"])

    @property
    def length(self) -> int:
        """Number of steps of a scan."""
        return int(self.params["length"])

    def emit(self, inner: Variable) -> Variable:
        """Let a scan also return the values that ``inner`` takes, one slice a step."""
        assert self.body is not None
        position = self.body.inputs.index(inner) if inner in self.body.inputs else -1
        sliced = self.n_consts + self.n_carry
        if position >= sliced:  # a slice of an input: the input itself
            outer = self.inputs[position]
            if isinstance(outer, Variable):
                return outer
        for old, out in zip(
            self.body.outputs[self.n_carry :], self.outputs[self.n_carry :], strict=True
        ):
            if old is inner:
                return out
        stacked = Variable((self.length, *inner.shape), inner.dtype)
        self.body.outputs.append(inner)
        self.outputs.append(stacked)
        return stacked


@dataclass(eq=False)
class Graph:
    """Operations in order, between inputs and outputs."""

    inputs: list[Variable] = field(default_factory=list)
    outputs: list[Atom] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)

    @cached_property
    def producers(self) -> dict[Variable, tuple[Equation, int]]:
        """The operation that defines each variable, and which of its outputs that is."""
        return {v: (eqn, k) for eqn in self.equations for k, v in enumerate(eqn.outputs)}

    def depending(self, seeds: Iterable[Variable]) -> set[Variable]:
        """Variables that depend on the seeds, also inside scans."""
        found = set(seeds)
        for eqn in self.equations:
            flags = [v in found for v in eqn.inputs]
            if eqn.body is None:
                if any(flags):
                    found.update(eqn.outputs)
                continue
            flags = _carried(eqn, flags, found)
            found.update(v for v, flag in zip(eqn.outputs, flags, strict=True) if flag)
        return found

    def pruned(self, outputs: Sequence[Atom]) -> Graph:
        """The part that the outputs need, also inside scans."""
        needed = {v for v in outputs if isinstance(v, Variable)}
        kept = []
        for eqn in reversed(self.equations):
            wanted = [v in needed for v in eqn.outputs]
            if not any(wanted):
                continue
            smaller = eqn if eqn.body is None else _pruned_scan(eqn, wanted)
            needed.update(v for v in smaller.inputs if isinstance(v, Variable))
            kept.append(smaller)
        return Graph(self.inputs, list(outputs), kept[::-1])

    def reads(self) -> set[Variable]:
        """Variables that an operation or the result reads."""
        atoms = [atom for eqn in self.equations for atom in eqn.inputs] + self.outputs
        return {atom for atom in atoms if isinstance(atom, Variable)}

    def run(self, *values: Any) -> list[Any]:
        """Values of the outputs."""
        known: dict[Variable, Any] = dict(zip(self.inputs, values, strict=True))

        def read(atom: Atom) -> Any:
            return atom.value if isinstance(atom, Literal) else known[atom]

        for eqn in self.equations:
            results = _run_equation(eqn, [read(atom) for atom in eqn.inputs])
            known.update(zip(eqn.outputs, results, strict=True))
        return [read(atom) for atom in self.outputs]

    def live_bytes(self, varying: set[Variable]) -> int:
        """Most bytes of varying values alive at once, outputs not counted, in this order."""
        last = {v: k for k, eqn in enumerate(self.equations) for v in eqn.inputs}
        outputs = set(self.outputs)
        alive: dict[Variable, int] = {}
        most = 0
        for k, eqn in enumerate(self.equations):
            made = [v for v in eqn.outputs if v in varying and v not in outputs]
            alive.update({v: v.bytes for v in made})
            inside = 0 if eqn.body is None else eqn.body.live_bytes(varying)
            most = max(most, sum(alive.values()) + inside)
            alive = {v: size for v, size in alive.items() if last.get(v, -1) > k}
        return most

    def walk(self) -> Iterator[tuple[Equation, int]]:
        """Every operation, with the number of times it runs."""
        for eqn in self.equations:
            yield eqn, 1
            if eqn.body is not None:
                for inner, times in eqn.body.walk():
                    yield inner, times * eqn.length

    def holds_tracers(self) -> bool:
        """Whether a value of the graph belongs to a trace around it."""
        return any(
            is_tracer(atom.value)
            for eqn, _ in self.walk()
            for atom in eqn.inputs
            if isinstance(atom, Literal)
        )


def trace(fn: Callable[..., Any], *args: Any) -> Graph:
    """Graph of ``fn(*args)``; inputs and outputs are the leaves of arguments and result.

    Parameters
    ----------
    fn
        A function of pytrees.
    args
        Arrays or `jax.ShapeDtypeStruct`.
    """
    closed = jax.make_jaxpr(fn)(*args)
    return _opened(*_parts(closed))


def _parts(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants; both kinds of jaxpr, and the one they are merging into."""
    return getattr(jaxpr, "jaxpr", jaxpr), tuple(getattr(jaxpr, "consts", ()))


def _opened(jaxpr: Any, consts: Sequence[Any]) -> Graph:
    graph = Graph([_variable(v) for v in jaxpr.invars])
    known: dict[Any, Atom] = dict(zip(jaxpr.invars, graph.inputs, strict=True))
    graph.outputs = _inline(graph, jaxpr, consts, known)
    return graph


def _inline(graph: Graph, jaxpr: Any, consts: Sequence[Any], known: dict[Any, Atom]) -> list[Atom]:
    """Add the equations of a jaxpr to a graph; ``known`` has its inputs."""
    for variable, value in zip(jaxpr.constvars, consts, strict=True):
        known[variable] = Literal(value)

    def read(atom: Any) -> Atom:
        return _literal(atom) if hasattr(atom, "val") else known[atom]

    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inputs = [read(atom) for atom in eqn.invars]
        inner = eqn.params.get(_CALLS.get(name, ""))
        if inner is not None:
            sub, sub_consts = _parts(inner)
            results = _inline(graph, sub, sub_consts, dict(zip(sub.invars, inputs, strict=True)))
            known.update(zip(eqn.outvars, results, strict=True))
            continue
        outputs = [_variable(v) for v in eqn.outvars]
        known.update(zip(eqn.outvars, outputs, strict=True))
        if name == "scan":
            scan = _scan_params(eqn.params)
            body = _opened(*_parts(eqn.params["jaxpr"]))
            graph.equations.append(Equation(name, scan, inputs, outputs, body=body))
        else:
            bind = _binder(eqn)
            graph.equations.append(Equation(name, dict(eqn.params), inputs, outputs, bind))
    return [read(atom) for atom in jaxpr.outvars]


def _variable(v: Any) -> Variable:
    return Variable(tuple(v.aval.shape), v.aval.dtype)


def _literal(atom: Any) -> Literal:
    """A number of the graph, in the dtype it has there (a Python number would take another)."""
    plain = isinstance(atom.val, bool | int | float | complex | np.generic)
    return Literal(np.asarray(atom.val, atom.aval.dtype) if plain else atom.val)


def _binder(eqn: Any) -> Callable[..., Sequence[Any]]:
    primitive, params = eqn.primitive, eqn.params

    def bind(*values: Any) -> Sequence[Any]:
        prepared = primitive.get_bind_params(params)
        # A tuple of functions and parameters before JAX 0.9.2, parameters alone since.
        functions, keywords = prepared if isinstance(prepared, tuple) else ((), prepared)
        result = primitive.bind(*functions, *values, **keywords)
        return list(result) if primitive.multiple_results else [result]

    return bind


def _scan_params(params: dict[str, Any]) -> dict[str, Any]:
    """Number of constants and of carried values, however this JAX writes them down."""
    found = {key: params[key] for key in ("length", "reverse", "unroll")}
    if "num_carry" in params:
        return found | {key: params[key] for key in ("num_consts", "num_carry")}
    groups = [len(list(group)) for group in params["ft_in"].unpack()]
    return found | {"num_consts": groups[0], "num_carry": groups[1]}


def _carried(eqn: Equation, flags: list[bool], found: set[Variable]) -> list[bool]:
    """Which outputs of a scan depend, given which inputs do; marks the body's variables."""
    assert eqn.body is not None
    flags = list(flags)
    start, stop = eqn.n_consts, eqn.n_consts + eqn.n_carry
    while True:
        inside = eqn.body.depending(v for v, f in zip(eqn.body.inputs, flags, strict=True) if f)
        out = [v in inside for v in eqn.body.outputs]
        carry = [a or b for a, b in zip(flags[start:stop], out[: eqn.n_carry], strict=True)]
        if carry == flags[start:stop]:
            found.update(inside)
            return carry + out[eqn.n_carry :]
        flags[start:stop] = carry


def _pruned_scan(eqn: Equation, wanted: list[bool]) -> Equation:
    """A scan that returns and carries only what is wanted."""
    assert eqn.body is not None
    body, n_consts, n_carry = eqn.body, eqn.n_consts, eqn.n_carry
    wanted = list(wanted)
    while True:
        smaller = body.pruned([v for v, w in zip(body.outputs, wanted, strict=True) if w])
        used = smaller.reads()
        carry = [body.inputs[n_consts + k] in used or wanted[k] for k in range(n_carry)]
        if carry == wanted[:n_carry]:
            break
        wanted[:n_carry] = carry
    kept = [
        v in used or (n_consts <= k < n_consts + n_carry and carry[k - n_consts])
        for k, v in enumerate(body.inputs)
    ]
    smaller.inputs = [v for v, keep in zip(body.inputs, kept, strict=True) if keep]
    params = eqn.params | {"num_consts": sum(kept[:n_consts]), "num_carry": sum(carry)}
    inputs = [v for v, keep in zip(eqn.inputs, kept, strict=True) if keep]
    outputs = [v for v, w in zip(eqn.outputs, wanted, strict=True) if w]
    return Equation(eqn.name, params, inputs, outputs, body=smaller)


def _run_equation(eqn: Equation, values: list[Any]) -> Sequence[Any]:
    if eqn.body is None:
        assert eqn.bind is not None
        return eqn.bind(*values)
    body, n_consts, n_carry = eqn.body, eqn.n_consts, eqn.n_carry
    consts, init = values[:n_consts], values[n_consts : n_consts + n_carry]
    slices = values[n_consts + n_carry :]

    def step(carry: list[Any], inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        results = body.run(*consts, *carry, *inputs)
        return results[:n_carry], results[n_carry:]

    options = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
    carry, stacked = jax.lax.scan(step, list(init), list(slices), **options)
    return [*carry, *stacked]


def traces_alike(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether tracing ``fn(*args)`` twice gives the same operations on the same numbers."""
    # New functions, or the second trace would be the first one, remembered.
    first, second = (trace(lambda *a, _k=k: fn(*a), *args) for k in range(2))
    ours, theirs = list(first.walk()), list(second.walk())
    return len(ours) == len(theirs) and all(
        a.name == b.name and all(map(_alike, a.inputs, b.inputs))
        for (a, _), (b, _) in zip(ours, theirs, strict=True)
    )


def _alike(a: Atom, b: Atom) -> bool:
    if not isinstance(a, Literal) or not isinstance(b, Literal):
        return type(a) is type(b)
    if is_tracer(a.value) or is_tracer(b.value) or a.value is b.value:
        return True
    if any(jnp.issubdtype(v.dtype, jax.dtypes.prng_key) for v in (a.value, b.value)):
        ours, theirs = (np.asarray(jax.random.key_data(v.value)) for v in (a, b))
        return np.array_equal(ours, theirs)
    return np.array_equal(np.asarray(a.value), np.asarray(b.value), equal_nan=True)
