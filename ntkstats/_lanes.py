"""How one function runs over many lanes: ensemble members, tiles, steps.

On a GPU, and on CPU without convolutions, vectorising (`vmap`) and rolled loops are best. On CPU
two things invert that: a convolution inside a rolled loop runs tens of times slower than outside
it (jax issue 12868), and a vmapped convolution lowers to a grouped one. There the lanes are
unrolled into one program instead. The result is the same up to rounding.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ntkstats._compat import contains_convolution
from ntkstats.typing import Array, PyTree

Index: TypeAlias = Array | int
"""Position in a loop: an array in a rolled one, an integer in an unrolled one."""


def prefers_unrolled(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether loops around ``fn(*args)`` should be unrolled on the default backend.

    ``args`` may be arrays or `jax.ShapeDtypeStruct`; nothing is computed.
    """
    return jax.default_backend() == "cpu" and contains_convolution(fn, *args)


def tree_index(tree: PyTree, i: Any) -> PyTree:
    """Entry ``i`` along the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def tree_stack(trees: list[PyTree]) -> PyTree:
    """Leaves of equal trees stacked along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def map_members(
    fn: Callable[..., Any], *args: PyTree, in_axes: tuple[int | None, ...], unroll: bool
) -> PyTree:
    """``vmap(fn, in_axes)(*args)``, or the same lanes unrolled in one program.

    Parameters
    ----------
    fn
        Function of one member.
    args
        Its arguments; those with axis 0 carry a leading member axis on every leaf.
    in_axes
        0 or None for each argument.
    unroll
        Trace ``fn`` once a member instead of vectorising it.
    """
    if not unroll:
        return jax.vmap(fn, in_axes=in_axes)(*args)
    mapped = [arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0]
    members = jax.tree.leaves(mapped)[0].shape[0]
    results = [
        fn(*(tree_index(a, i) if ax == 0 else a for a, ax in zip(args, in_axes, strict=True)))
        for i in range(members)
    ]
    return tree_stack(results)


def loop(
    start: Index,
    stop: Index,
    body: Callable[[Any, Any], Any],
    carry: Any,
    *,
    unroll: bool,
) -> Any:
    """``fori_loop`` with an unrolled twin whose index is a Python integer.

    With ``unroll`` both bounds must be Python integers.
    """
    if not unroll:
        return jax.lax.fori_loop(start, stop, body, carry)
    for i in range(operator.index(start), operator.index(stop)):
        carry = body(i, carry)
    return carry


def after(value: Array) -> Array:
    """A zero, int32, that cannot be known before ``value`` is.

    Added to an index it makes one step of an unrolled loop wait for another. Without it the
    compiler merges what the steps have in common and keeps all of it alive at once, against any
    memory budget (on CPU an optimization barrier is gone before that happens).
    """
    # No number exceeds infinity, but no compiler pass knows that.
    return (value[(0,) * value.ndim] > jnp.inf).astype(jnp.int32)
