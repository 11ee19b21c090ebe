"""A scan that stops at the steps of a schedule, so that the steps between cost nothing more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.errors import RecordingError
from ntkstats.typing import Array, PyTree

Carry = TypeVar("Carry")
Step = Callable[[Carry, PyTree], tuple[Carry, PyTree]]


def scan_between(
    step: Step,
    measure: Callable[[Any, Array, Array, Carry], Any],
    held: Any,
    init: Carry,
    xs: PyTree,
    n: int,
    rows: np.ndarray,
    stops: np.ndarray,
) -> tuple[Carry, PyTree, Any]:
    """`jax.lax.scan` with a measurement before each of some steps.

    A condition inside the loop would have XLA copy the parameters at every step, since it cannot
    tell that the update comes after the measurement. Here the loop between two measurements is
    one without any.

    Parameters
    ----------
    step
        As for `jax.lax.scan`.
    measure
        ``measure(held, row, stop, carry) -> held``.
    held
        What the measurements are kept in.
    init, xs
        As for `jax.lax.scan`.
    n
        How many steps.
    rows, stops
        ``(K,)`` where to keep each measurement, and after how many steps it is due, increasing.

    Returns
    -------
    carry, ys
        As of `jax.lax.scan`.
    held
    """
    # What a scan would make of it, weakly typed numbers and errors included.
    plain = partial(jax.lax.scan, step, length=n)
    carry_shape, y_shape = jax.eval_shape(plain, init, xs)
    init = jax.tree.map(lambda leaf, shape: jnp.asarray(leaf, shape.dtype), init, carry_shape)
    ys = jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), y_shape)
    if n == 0:
        return init, ys, held

    def one(i: Array, both: tuple[Carry, PyTree]) -> tuple[Carry, PyTree]:
        carry, ys = both
        x = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), xs)
        carry, y = step(carry, x)
        put = jax.lax.dynamic_update_index_in_dim
        return carry, jax.tree.map(lambda all_y, one_y: put(all_y, one_y, i, 0), ys, y)

    def up_to_stop(all_: Any, segment: tuple[Array, ...]) -> tuple[Any, None]:
        carry, ys, held = all_
        row, start, stop = segment
        carry, ys = jax.lax.fori_loop(start, stop, one, (carry, ys))
        return (carry, ys, measure(held, row, stop, carry)), None

    done, state = 0, (init, ys, held)
    if len(stops):
        starts = np.concatenate([[0], stops[:-1]])
        segments = tuple(jnp.asarray(part) for part in (rows, starts, stops))
        state, done = jax.lax.scan(up_to_stop, state, segments)[0], int(stops[-1])
    carry, ys, held = state
    if done < n:
        carry, ys = jax.lax.fori_loop(done, n, one, (carry, ys))
    return carry, ys, held


def scan_length(xs: PyTree, length: int | None) -> int:
    """How many steps a scan makes.

    Raises
    ------
    RecordingError
        What it is given has several sizes, or none.
    """
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in jax.tree.leaves(xs)}
    if length is not None:
        sizes.add(length)
    if len(sizes) != 1 or None in sizes:
        message = (
            f"scan was given xs and length with the sizes {sorted(map(str, sizes))}; expected one "
            "size. Stack what the steps take along a first axis, or give length= alone."
        )
        raise RecordingError(message)
    return int(sizes.pop())  # type: ignore[arg-type]
