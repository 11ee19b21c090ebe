"""Many independent searches as lanes of one program, refilled as they finish.

A batch of searches is as slow as its slowest member if it runs to the end. Here it runs a few
iterations at a time; lanes that finished are then given new starts, and when no starts are left
the batch shrinks, so that stragglers do not keep the others' places warm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.typing import Array, PyTree

RUNNING, CONVERGED, STALLED, EXHAUSTED, NOT_FINITE, DIVERGED = range(6)
"""What became of a search."""

OUTCOMES = ("running", "converged", "stalled", "out of iterations", "not finite", "diverged")
"""The same in words."""

_SHRINK = 8  # a batch shrinks when this factor smaller would do; each size is compiled once
_SMALLEST = 32


class Walker(NamedTuple):
    """A search that can be run in pieces. Lanes are the **last** axis of every array.

    Lanes last lets a CPU compute several lanes with one instruction, however small the problem.

    Attributes
    ----------
    init
        ``init(starts, data) -> state``; the state has a leaf ``status`` [lanes].
    advance
        ``advance(state, data) -> state``: some more iterations of the lanes that run.
    report
        ``report(state) -> {name: array [..., lanes]}``: what is kept of finished lanes.
    """

    init: Callable[[PyTree, PyTree], Any]
    advance: Callable[[Any, PyTree], Any]
    report: Callable[[Any], dict[str, Array]]


def drain(
    walker: Walker, starts: dict[str, np.ndarray], data: PyTree, *, batch: int
) -> dict[str, np.ndarray]:
    """Run every start to its end.

    Parameters
    ----------
    walker
        The search.
    starts
        ``{name: array [n, ...]}``, as `Walker.init` takes them with lanes last.
    data
        Passed through.
    batch
        Most lanes at a time.

    Returns
    -------
    dict
        What `Walker.report` names, ``[n, ...]``, in the order of the starts.
    """
    n = len(next(iter(starts.values())))
    kept: dict[str, np.ndarray] = {}
    if n == 0:
        return kept
    size = _size_for(n, batch)
    waiting = iter(range(n))
    owner = _next(waiting, np.full(size, -1), np.ones(size, bool))
    state = walker.init(_laid(starts, owner), data)
    while (owner >= 0).any():
        state = walker.advance(state, data)
        status = np.asarray(state.status)
        ended = (status != RUNNING) & (owner >= 0)
        if not ended.any():
            continue
        _keep(kept, walker.report(state), ended, owner, n)
        owner = np.where(ended, -1, owner)
        filled = _next(waiting, owner, ended)
        new = (filled >= 0) & (owner < 0)
        if new.any():
            state = _merge(state, walker.init(_laid(starts, filled), data), jnp.asarray(new))
            owner = filled
            continue
        alive = np.flatnonzero(owner >= 0)
        if alive.size and size > _SMALLEST and alive.size * _SHRINK <= size:
            size = max(size // _SHRINK, _SMALLEST)
            lanes = np.resize(alive, size)
            state = _take(state, jnp.asarray(lanes))
            owner = np.where(np.arange(size) < alive.size, owner[lanes], -1)
    return kept


def _size_for(n: int, batch: int) -> int:
    """The smallest of ``batch, batch/8, batch/64, ...`` that holds n."""
    size = batch
    while size // _SHRINK >= n and size // _SHRINK >= _SMALLEST:
        size //= _SHRINK
    return size


def _next(waiting: Iterator[int], owner: np.ndarray, free: np.ndarray) -> np.ndarray:
    owner = owner.copy()
    for lane, start in zip(np.flatnonzero(free), waiting, strict=False):
        owner[lane] = start
    return owner


def _laid(starts: dict[str, np.ndarray], owner: np.ndarray) -> dict[str, Array]:
    """The starts of these lanes, lanes last; idle lanes repeat some start."""
    rows = np.where(owner >= 0, owner, owner.max())
    return {name: jnp.asarray(np.moveaxis(of[rows], 0, -1)) for name, of in starts.items()}


def _keep(
    kept: dict[str, np.ndarray],
    report: dict[str, Array],
    ended: np.ndarray,
    owner: np.ndarray,
    n: int,
) -> None:
    for name, value in report.items():
        rows = np.moveaxis(np.asarray(value), -1, 0)
        if name not in kept:
            kept[name] = np.zeros((n, *rows.shape[1:]), rows.dtype)
        kept[name][owner[ended]] = rows[ended]


@jax.jit
def _merge(old: Any, new: Any, replace: Array) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(replace, b, a), old, new)


@jax.jit
def _take(state: Any, lanes: Array) -> Any:
    return jax.tree.map(lambda leaf: jnp.take(leaf, lanes, axis=-1), state)
