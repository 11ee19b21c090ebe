"""A condition that stays one under `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ntkstats.typing import Array, PyTree

Step: TypeAlias = Callable[[PyTree, PyTree], PyTree]


def only_if(step: Step) -> Callable[[Array, PyTree, PyTree], PyTree]:
    """``gated(due, held, args)``: ``step(held, args)`` where due, else ``held`` as it was.

    `jax.vmap` turns `jax.lax.cond` into a selection that computes both sides for everyone as soon
    as the condition differs between lanes, or only might (a counter that is carried along). Here
    nothing is computed while no lane is due, and lanes that are due take turns, so that memory is
    that of one.

    Parameters
    ----------
    step
        Pure; what it returns has the structure, shapes and dtypes of ``held``.
    """

    @custom_vmap
    def gated(due: Array, held: PyTree, args: PyTree) -> PyTree:
        return jax.lax.cond(due, step, lambda held, _: held, held, args)

    @gated.def_vmap
    def _(size: int, batched: Any, due: Array, held: PyTree, args: PyTree) -> tuple[PyTree, PyTree]:
        def spread(leaf: Array, has_lanes: bool) -> Array:
            return leaf if has_lanes else jnp.broadcast_to(leaf, (size, *jnp.shape(leaf)))

        lanes = jax.tree.map(spread, (due, held, args), tuple(batched))

        def in_turn(held: PyTree, others: tuple[Array, PyTree]) -> PyTree:
            due, args = others
            return jax.lax.map(lambda lane: gated(*lane), (due, held, args))

        due, held, args = lanes
        # Gated again, for the case that another vmap lies around this one.
        result = only_if(in_turn)(jnp.any(due), held, (due, args))
        return result, jax.tree.map(lambda _: True, result)

    return gated
