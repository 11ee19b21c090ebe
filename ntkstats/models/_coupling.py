"""The test whether one sample's output depends on other samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.typing import Inputs, Outputs, Params, PyTree, State

MAX_ROWS = 32
"""Samples used at most; interactions between so few are strong."""

NUDGE = 0.1
"""Relative size of the step away from the parameters."""


class Interaction(NamedTuple):
    """Where an interaction was seen: head, sample, change of its output, size of its output."""

    head: str
    sample: int
    change: float
    scale: float


def find_interaction(
    apply: Callable[[Params, State, Inputs], Outputs],
    params: Params,
    state: State,
    x: Inputs,
    n: int,
    heads: Sequence[str],
    *,
    rows: int | None = None,
) -> Interaction | None:
    """Change some samples and look whether the outputs of the others move.

    All evaluations have the same shapes and run through one compiled function, so that rounding
    is that of one program and small tolerances are safe. They are repeated at parameters a step
    away, because at initialisation a final layer of zeros hides everything before it.

    Parameters
    ----------
    apply, params, state
        The model.
    x
        Inputs with N = `n` samples.
    heads
        Names of the heads to look at.
    rows
        How many samples to use; by default at most `MAX_ROWS`, spread evenly.

    Returns
    -------
    Interaction or None
        The first one found.
    """
    used = np.unique(np.linspace(0, n - 1, rows or min(n, MAX_ROWS)).astype(int))
    base = jax.tree.map(lambda leaf: _rows(leaf, used), x)
    compiled = jax.jit(apply)
    for point in (params, jax.jit(_nudged)(params)):
        reference = compiled(point, state, base)
        for kept, changed in _variations(base, used.size):
            outputs = compiled(point, state, changed)
            for head in heads:
                found = _compare(reference[head], outputs[head], kept)
                if found is not None:
                    row, change, scale = found
                    return Interaction(head, int(used[row]), change, scale)
    return None


def _variations(x: Inputs, rows: int) -> Iterator[tuple[np.ndarray, Inputs]]:
    """Yield which rows are kept, and inputs in which all others are changed.

    Halves find interactions of any range; even against odd rows also those that only look back
    or only reach a neighbour, in both directions.
    """
    index = np.arange(rows)
    half = max(rows // 2, 1)
    yield index < half, _replaced(x, index < half, index % half, distort=False)
    for parity in (0, 1):
        kept = index % 2 == parity
        source = (index + half) % rows
        yield kept, _replaced(x, kept, source, distort=True)


def _replaced(x: Inputs, kept: np.ndarray, source: np.ndarray, *, distort: bool) -> Inputs:
    rows = np.where(kept, np.arange(kept.size), source)

    def changed(leaf: Any) -> Any:
        other = leaf[rows]
        # Integers, such as tokens, stay within the values that occur.
        if distort and jnp.issubdtype(leaf.dtype, jnp.inexact):
            with np.errstate(over="ignore", invalid="ignore"):
                other[~kept] = 0.5 - 1.5 * other[~kept]
        return other

    return jax.tree.map(changed, x)


def _rows(leaf: Any, used: np.ndarray) -> Any:
    """Take rows to the host, where small changes cost no compilation; keys must stay."""
    rows = leaf[used]
    return rows if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(rows)


def _nudged(params: Params) -> PyTree:
    """Move every parameter by a fixed pattern of a tenth of its layer's size."""

    def moved(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        size = jnp.sqrt(jnp.mean(jnp.square(leaf.astype(jnp.float32))))
        step = NUDGE * jnp.where(size > 0, size, 1.0)
        pattern = jnp.cos(1.0 + jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
        return (leaf + step * pattern).astype(leaf.dtype)

    return jax.tree.map(moved, params)


def _compare(
    before: jax.Array, after: jax.Array, kept: np.ndarray
) -> tuple[int, float, float] | None:
    """Return (row, change, scale) of the kept row that moved most beyond rounding, or None."""
    a = np.asarray(before, dtype=np.float64).reshape(kept.size, -1)
    b = np.asarray(after, dtype=np.float64).reshape(kept.size, -1)
    # Where the reference is not finite nothing can be told.
    known = np.isfinite(a)
    a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)
    with np.errstate(invalid="ignore"):
        change = np.abs(a - b).max(axis=1)
    change = np.where(np.isnan(change), np.inf, change)
    overall = np.abs(a).max()
    tolerance = _tolerance(before.dtype)
    scale = np.abs(a).max(axis=1)
    excess = np.where(kept, change - tolerance * (scale + tolerance * overall), -1.0)
    row = int(np.argmax(excess))
    if excess[row] <= 0:
        return None
    return row, float(change[row]), float(scale[row])


def _tolerance(dtype: Any) -> float:
    # Never below 1e-5: scatter-adds on accelerators round in another order each time.
    info: Any = jnp.finfo
    return float(np.clip(100 * float(info(dtype).eps), 1e-5, 0.03))
