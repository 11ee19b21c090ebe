"""The door: pick k samples of a pool."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntkstats._compat import x64
from ntkstats.selection._checks import Request, check_request, check_shards
from ntkstats.selection._columns import is_replicated
from ntkstats.selection._rows import Rows
from ntkstats.selection._types import Greedy, Pool, Problem, Selection, Selector, Whole
from ntkstats.typing import Array, ArrayLike, PyTree


def select(
    selector: Selector,
    key: Array,
    pool: Pool,
    k: int,
    *,
    selected: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    batch: int = 1,
    tol: float | None = None,
    precision: str | None = None,
) -> Selection:
    """Pick ``k`` samples of a pool.

    Pure and of fixed shapes: ``jax.vmap(lambda key: select(selector, key, pool, k))(keys)`` runs
    many seeds as one program. Compiled once for a selector, a pool's shapes, ``k`` and ``batch``.

    Parameters
    ----------
    selector
        What to pick by, e.g. `MaxDet()`.
    key
        PRNG key; deterministic selectors ignore it.
    pool
        The samples.
    k
        Number of picks, at least 0 and at most the number of candidates that are not selected.
    selected
        What was selected before, ``(m,)`` indices or a mask ``(N,)``: it is taken into account
        and never picked again. Inside a trace only indices.
    candidates
        What may be picked, ``(m,)`` indices or a mask ``(N,)``; by default everything. Samples
        that are no candidates still count in what selectors measure over the pool. A sample that
        is both selected and a candidate counts as selected.
    batch
        Picks between two retrainings of selectors that retrain (`RND`). All others renew their
        scores after every pick, since that is cheap.
    tol
        Stop when the best score is at most ``tol`` times the first one; `count` says how many
        were picked.
    precision
        ``"float64"`` widens the pool and computes in float64 (from the host only).

    Returns
    -------
    Selection
        Indices in the order they were picked, with the score of each at that moment.

    Raises
    ------
    SelectionError
        The arguments do not fit together, the pool has numbers that are not finite, or the
        selector lacks something.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[0.0, 0.1], [3.0, 0.0], [2.9, 0.1], [0.0, 2.0]])
    >>> pool = selection.Pool(kernel=selection.linear(x))
    >>> picked = selection.select(selection.MaxDet(), jax.random.key(0), pool, 2)
    >>> picked.indices.tolist(), [round(float(v), 2) for v in picked.scores]
    ([1, 3], [9.0, 4.0])
    """
    request = check_request(selector, key, pool, k, selected, candidates, batch, tol, precision)
    if precision == "float64":
        with x64():
            return _select(selector, key, _widened(request))
    return _select(selector, key, request)


def select_sharded(
    selector: Selector,
    key: Array,
    pool: Pool,
    k: int,
    *,
    mesh: Mesh,
    mesh_axis: str | None = None,
    selected: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    batch: int = 1,
    tol: float | None = None,
) -> Selection:
    """As `select`, with the rows of the pool spread over the devices of a mesh.

    Every device rates its own rows; the best of all is found by a reduction, and only the picked
    row travels. Picks agree with those of `select` up to rounding.

    Parameters
    ----------
    selector, key, pool, k, selected, candidates, batch, tol
        As for `select`.
    mesh, mesh_axis
        The devices, and the axis along which to spread if there are several.

    Raises
    ------
    SelectionError
        As for `select`, or the selector needs all rows in one place.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> pool = selection.Pool(kernel=selection.linear(jnp.diag(jnp.arange(4.0))))
    >>> selection.select_sharded(
    ...     selection.MaxDet(), jax.random.key(0), pool, 2, mesh=mesh).indices.tolist()
    [3, 2]
    """
    axis = check_shards(selector, mesh, mesh_axis)
    request = check_request(selector, key, pool, k, selected, candidates, batch, tol, None)
    shards = int(mesh.shape[axis])
    padded = _padded(request, shards)

    def local(key: Array, pool: Pool, mask: Array, measure: Array, selected: Array) -> Selection:
        rows = Rows(mask.shape[0], axis, shards)
        return _pick(selector, key, pool, mask, measure, selected, request.statics, rows)

    spread, whole = PartitionSpec(axis), PartitionSpec()
    places = jax.tree.map(
        lambda node: whole if is_replicated(node) else spread, padded.pool, is_leaf=is_replicated
    )
    specs = (whole, places, spread, spread, whole)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)
    arguments = (key, padded.pool, padded.mask, padded.measure, padded.selected)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.jit(mapped)(*jax.device_put(arguments, shardings))


def _select(selector: Selector, key: Array, request: Request) -> Selection:
    return _on_one_device(
        selector,
        key,
        request.pool,
        request.mask,
        request.measure,
        request.selected,
        request.statics,
    )


@partial(jax.jit, static_argnames=("selector", "statics"))
def _on_one_device(
    selector: Selector,
    key: Array,
    pool: Pool,
    mask: Array,
    measure: Array,
    selected: Array,
    statics: tuple[int, int, float | None],
) -> Selection:
    def run(key: Array, pool: Pool, mask: Array, measure: Array, selected: Array) -> Selection:
        rows = Rows(mask.shape[0])
        return _pick(selector, key, pool, mask, measure, selected, statics, rows)

    if selector.ragged and jax.default_backend() == "cpu":
        # Lanes of a vectorised loop all go on until the slowest is done. A GPU has nothing better
        # to do; on CPU that is time, and lanes that take turns end when they are ready.
        run = jax.custom_batching.sequential_vmap(run)
    return run(key, pool, mask, measure, selected)


def _pick(
    selector: Selector,
    key: Array,
    pool: Pool,
    mask: Array,
    measure: Array,
    selected: Array,
    statics: tuple[int, int, float | None],
    rows: Rows,
) -> Selection:
    k, batch, tol = statics
    known = jnp.isin(rows.numbers(), selected)
    problem = Problem(pool, rows, mask, measure, known, int(selected.shape[0]), k, batch)
    if isinstance(selector, Whole):
        chosen, scores, weights = selector.choose(key, problem, selected)
        return Selection(chosen.astype(jnp.int32), scores, jnp.asarray(k), weights, {})
    assert isinstance(selector, Greedy)
    return _greedy(selector, key, problem, selected, tol)


def _greedy(
    selector: Greedy, key: Array, problem: Problem, selected: Array, tol: float | None
) -> Selection:
    """One loop over picks."""
    rows, before, k, batch = problem.rows, problem.before, problem.k, problem.batch
    state = selector.start(key, problem)
    if before:
        state = jax.lax.fori_loop(
            0, before, lambda slot, s: selector.update(s, problem, selected[slot], slot), state
        )
        state = selector.refresh(state, problem, jnp.asarray(before))
    dtype = jax.eval_shape(lambda s: selector.scores(s, problem), state).dtype

    def body(step: Array, carry: PyTree) -> PyTree:
        state, free, indices, scores, going = carry
        values = selector.scores(state, problem)
        values = jnp.where(free & jnp.isfinite(values), values, -jnp.inf)
        i, best = rows.best(values, selector.ties(state, problem))
        going = going & (best > -jnp.inf)
        if tol is not None:
            going = going & ((step == 0) | (best > tol * scores[0]))
        indices = indices.at[step].set(jnp.where(going, i, -1))
        scores = scores.at[step].set(jnp.where(going, best, jnp.nan))
        # Once it has stopped nothing is picked again, so what becomes of the state is no matter.
        state = selector.update(state, problem, i, before + step)
        due = (((step + 1) % batch == 0) | (step + 1 == k)) & (step + 1 < k)
        state = jax.lax.cond(
            due, lambda s: selector.refresh(s, problem, before + step + 1), lambda s: s, state
        )
        return state, free & ~rows.owns(i), indices, scores, going

    start = (
        state,
        problem.candidates,
        jnp.full(k, -1, jnp.int32),
        jnp.full(k, jnp.nan, dtype),
        jnp.asarray(True),
    )
    # Tracing the body takes an entry, which k = 0 does not have.
    state, _, indices, scores, _ = jax.lax.fori_loop(0, k, body, start) if k else start
    picked = indices >= 0
    log = {name: _masked(value, picked) for name, value in selector.log(state, problem).items()}
    return Selection(indices, scores, jnp.sum(picked), None, log)


def _masked(value: Array, picked: Array) -> Array:
    """NaN (or zero, for counts and flags) where nothing was picked."""
    inexact = jnp.issubdtype(value.dtype, jnp.inexact)
    shape = (-1,) + (1,) * (value.ndim - 1)
    return jnp.where(picked.reshape(shape), value, jnp.nan if inexact else 0).astype(value.dtype)


def _widened(request: Request) -> Request:
    def wide(leaf: Any) -> Array:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float64) if floating else jnp.asarray(leaf)

    return request._replace(
        pool=jax.tree.map(wide, request.pool), measure=wide(np.asarray(request.measure))
    )


def _padded(request: Request, shards: int) -> Request:
    """Rows of zeros at the end, which are no candidates and weigh nothing."""
    missing = -request.mask.shape[0] % shards

    def longer(leaf: Any) -> Any:
        if is_replicated(leaf):
            return leaf
        return jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))

    return request._replace(
        pool=jax.tree.map(longer, request.pool, is_leaf=is_replicated),
        mask=longer(request.mask),
        measure=longer(request.measure),
    )
