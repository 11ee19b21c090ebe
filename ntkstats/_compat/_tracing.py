"""Precision and tracing: what JAX is doing here, and what a function would do."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


def x64() -> contextlib.AbstractContextManager[Any]:
    """Context in which JAX computes in float64, whatever the global setting."""
    return jax.enable_x64(True)


def x64_enabled() -> bool:
    """Whether JAX computes in float64 here (global setting or an enclosing `x64`)."""
    return bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)


def is_tracer(x: Any) -> bool:
    """Whether ``x`` stands for a value that is not known yet."""
    return isinstance(x, jax.core.Tracer)


def inside_trace() -> bool:
    """Whether a function is being traced here (by ``jit``, ``scan``, ``cond``, ...).

    ``vmap`` and ``grad`` alone do not count: under them new arrays are still concrete.
    """
    # A new array is a tracer exactly where JAX records operations instead of running them.
    return is_tracer(jnp.zeros(()))


def contains_convolution(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether ``fn(*args)`` runs a convolution; arguments may be ``jax.ShapeDtypeStruct``.

    Traces without computing. Any failure counts as no: the answer is used to choose a faster
    path, never a different result.
    """
    try:
        traced = jax.make_jaxpr(fn)(*args)
    except Exception:
        return False
    return any(equation.primitive.name == "conv_general_dilated" for equation in _equations(traced))


def side_effects(fn: Callable[..., Any], *args: Any) -> list[str]:
    """Names of the side effects of ``fn(*args)``; printing for debugging does not count."""
    found = jax.make_jaxpr(fn)(*args).effects
    return sorted({type(e).__name__ for e in found if "Debug" not in type(e).__name__})


def host_callbacks(fn: Callable[..., Any], *args: Any) -> list[str]:
    """Names of the operations by which ``fn(*args)`` calls Python on the host while it runs."""
    names = (equation.primitive.name for equation in _equations(jax.make_jaxpr(fn)(*args)))
    return sorted({name for name in names if "callback" in name or name == "debug_print"})


def keeps_tracers(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether ``fn(*args)`` leaves values of a trace behind, in a list of its own say.

    As `jax.checking_leaks`, which searches the whole heap for the owner and takes minutes at it.
    """
    traces: list[weakref.ref[Any]] = []

    def watched(*args: Any) -> Any:
        tracer = next(leaf for leaf in jax.tree.leaves(args) if is_tracer(leaf))
        traces.append(weakref.ref(tracer._trace))
        return fn(*args)

    jax.eval_shape(watched, *args)
    gc.collect()
    return any(trace() is not None for trace in traces)


def leaves_float64(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether ``fn(*args)`` rounds a float64 to a narrower float anywhere, without computing."""

    def narrows(equation: Any) -> bool:
        if equation.primitive.name != "convert_element_type":
            return False
        new = equation.outvars[0].aval.dtype
        old = equation.invars[0].aval.dtype
        return old == np.float64 and jnp.issubdtype(new, jnp.floating) and new != np.float64

    return any(map(narrows, _equations(jax.make_jaxpr(fn)(*args))))


def pullback_bytes(fn: Callable[..., Any], params: Any, state: Any, x: Any) -> tuple[int, int]:
    """Bytes of activations that the pullback of one array ``fn(params, state, x)`` needs.

    Follows the program order of the traced functions and computes nothing; compilers usually find
    an order that needs less. The derivative is taken with respect to ``params``.

    Returns
    -------
    forward
        What depends on ``x`` and is kept for the pullback or needed on the way to it.
    backward
        What depends on the cotangent while it is pulled back, without the gradient itself.
    """

    def forward(params: Any, state: Any, x: Any) -> Any:
        return jax.vjp(lambda p: fn(p, state, x), params)

    traced, (out, pull) = jax.make_jaxpr(forward, return_shape=True)(params, state, x)
    inputs = traced.jaxpr.invars[-len(jax.tree.leaves(x)) :]
    back = jax.make_jaxpr(lambda pull, cotangent: pull(cotangent))(pull, out).jaxpr
    return sum(_live_bytes(traced.jaxpr, inputs)), _live_bytes(back, back.invars[-1:])[0]


def _live_bytes(jaxpr: Any, inputs: Iterable[Any]) -> tuple[int, int]:
    """Bytes that depend on the inputs: most alive at once apart from outputs, and of outputs."""
    last = {v: k for k, eqn in enumerate(jaxpr.eqns) for v in _variables(eqn.invars)}
    outputs = _variables(jaxpr.outvars) - set(jaxpr.invars)
    varying, alive, most = set(inputs), dict[Any, int](), 0
    for k, eqn in enumerate(jaxpr.eqns):
        if varying.isdisjoint(_variables(eqn.invars)):
            continue
        varying.update(eqn.outvars)
        alive.update({v: _bytes(v) for v in eqn.outvars if v not in outputs})
        inside = [_live_bytes(inner, inner.invars)[0] for inner in _jaxprs(eqn.params.values())]
        most = max(most, sum(alive.values()) + max(inside, default=0))
        alive = {v: size for v, size in alive.items() if last.get(v, -1) > k}
    return most, sum(map(_bytes, outputs & varying))


def _variables(atoms: Iterable[Any]) -> set[Any]:
    return {atom for atom in atoms if not hasattr(atom, "val")}  # literals hold their value


def _bytes(variable: Any) -> int:
    aval = variable.aval
    return int(aval.size * aval.dtype.itemsize) if hasattr(aval, "dtype") else 0


def _jaxprs(values: Iterable[Any]) -> Iterator[Any]:
    """Jaxprs among the values and in sequences of them."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _jaxprs(value)
        elif hasattr(inner := getattr(value, "jaxpr", value), "eqns"):
            yield inner


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, also inside ``jit``, ``scan``, custom rules, ..."""
    for inner in _jaxprs([jaxpr]):
        for equation in inner.eqns:
            yield equation
            yield from _equations(list(equation.params.values()))
