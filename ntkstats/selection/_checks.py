"""What is refused at the door."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ntkstats._compat import inside_trace, is_tracer
from ntkstats.errors import PrecisionError, SelectionError
from ntkstats.selection._columns import Columns
from ntkstats.selection._types import Pool, Selector
from ntkstats.typing import Array, PyTree

NEEDS = {
    "x": "inputs: Pool(x=...)",
    "y": "labels: Pool(y=...)",
    "kernel": "a kernel: Pool(kernel=selection.linear(x)), or one of ntk_features, dense, ...",
    "prior": "the NNGP kernel: Pool(prior=...)",
    "clusters": "clusters: Pool(clusters=...)",
}


class Request(NamedTuple):
    """Arguments of `select`, checked and brought into one form.

    Attributes
    ----------
    pool
        Leaves are JAX arrays.
    mask
        ``(N,)`` True where a row may be picked.
    measure
        ``(N,)`` weights of means over the pool.
    selected
        ``(m,)`` indices.
    statics
        k, batch and tol.
    """

    pool: Pool
    mask: Array
    measure: Array
    selected: Array
    statics: tuple[int, int, float | None]


def check_request(
    selector: Any,
    key: Any,
    pool: Any,
    k: Any,
    selected: Any,
    candidates: Any,
    batch: Any,
    tol: Any,
    precision: Any,
) -> Request:
    """Refuse what cannot work; values are looked at unless they are traced."""
    if not isinstance(selector, Selector):
        msg = f"selector={selector!r}; expected a selector such as selection.MaxDet()."
        raise SelectionError(msg)
    if not isinstance(pool, Pool):
        msg = f"pool is a {type(pool).__name__}; expected selection.Pool(x=..., kernel=...)."
        raise SelectionError(msg)
    _check_key(key)
    _check_precision(precision)
    n = _size(pool)
    k, batch = _whole("k", k, 0), _whole("batch", batch, 1)
    if tol is not None and not (isinstance(tol, int | float) and 0 <= tol < 1):
        msg = f"tol={tol!r}; expected a share of the first score in [0, 1), or None."
        raise SelectionError(msg)
    for part in selector.requires:
        if getattr(pool, part) is None:
            msg = f"{type(selector).__name__} was given a pool without {part}; it needs "
            msg += NEEDS[part] + "."
            raise SelectionError(msg)
    pool = Pool(*(None if part is None else _arrays(part) for part in pool))
    _check_finite(pool)
    chosen = _indices("selected", selected, n)
    mask = _mask(candidates, n).at[chosen].set(False)
    _check_enough(k, mask, candidates, chosen)
    selector.check(pool, k, batch)
    measure = jnp.full(n, 1 / n)
    return Request(pool, mask, measure, chosen, (k, batch, None if tol is None else float(tol)))


def check_shards(selector: Selector, mesh: Mesh, axis: str | None) -> str:
    """The axis along which rows are spread."""
    if isinstance(selector, Selector) and not selector.shards:
        msg = (
            f"{type(selector).__name__} needs all rows in one place and cannot run on a pool that "
            "is spread over devices; use select."
        )
        raise SelectionError(msg)
    if axis is None and len(mesh.axis_names) == 1:
        return str(mesh.axis_names[0])
    if axis not in mesh.axis_names:
        msg = f"mesh_axis={axis!r}; expected one of the mesh's axes {tuple(mesh.axis_names)}."
        raise SelectionError(msg)
    return str(axis)


def _check_key(key: Any) -> None:
    typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = hasattr(key, "dtype") and key.dtype == jnp.uint32 and jnp.ndim(key) == 1
    if not (raw or (typed and jnp.ndim(key) == 0)):
        shown = f"an array of shape {jnp.shape(key)}" if hasattr(key, "dtype") else repr(key)
        msg = (
            f"key is {shown}; expected one PRNG key, jax.random.key(0). For many seeds: "
            "jax.vmap(lambda key: select(selector, key, pool, k))(keys)."
        )
        raise SelectionError(msg)


def _check_precision(precision: Any) -> None:
    if precision not in (None, "float64"):
        msg = f"precision={precision!r}; expected None or 'float64'."
        raise PrecisionError(msg)
    if precision == "float64" and inside_trace():
        msg = (
            "precision='float64' was asked for inside a function that JAX is tracing; call select "
            "outside jit, or trace everything under jax.enable_x64(True)."
        )
        raise PrecisionError(msg)


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        msg = f"{name}={value!r}; expected an integer of at least {least}, known when compiling."
        raise SelectionError(msg)
    return number


def _size(pool: Pool) -> int:
    """N, on which all parts agree."""
    sizes: dict[str, int] = {}
    for name, part in zip(Pool._fields, pool, strict=True):
        if part is None:
            continue
        if name in ("kernel", "prior"):
            if not isinstance(part, Columns):
                msg = (
                    f"Pool({name}=...) is a {type(part).__name__}; expected a kernel: "
                    "selection.dense(matrix) for a matrix, selection.linear(x) for features."
                )
                raise SelectionError(msg)
            sizes[name] = part.n
        else:
            for path, leaf in jax.tree_util.tree_leaves_with_path(part):
                shape = np.shape(leaf)
                if not shape:
                    msg = f"Pool({name}=...) holds a scalar; expected arrays (N, ...)."
                    raise SelectionError(msg)
                sizes[name + jax.tree_util.keystr(path)] = shape[0]
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        msg = (
            f"the pool's parts have leading sizes {sizes}; expected one number of samples, at "
            "least 1, in all parts."
        )
        raise SelectionError(msg)
    return next(iter(sizes.values()))


def _arrays(part: PyTree) -> PyTree:
    return jax.tree.map(jnp.asarray, part)


def _check_finite(pool: Pool) -> None:
    for name, part in zip(Pool._fields, pool, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(part):
            if is_tracer(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
                continue
            values = np.atleast_1d(np.asarray(leaf))  # by NumPy, which no trace turns abstract
            finite = np.isfinite(values).reshape(values.shape[0], -1).all(axis=1)
            if not finite.all():
                bad = np.flatnonzero(~finite)
                msg = (
                    f"Pool.{name}{jax.tree_util.keystr(path)} has {bad.size} rows with entries "
                    f"that are not finite, the first at {bad[0]}; expected finite numbers. Drop or "
                    "impute these samples."
                )
                raise SelectionError(msg)


def _indices(name: str, given: Any, n: int) -> Array:
    if given is None:
        return jnp.zeros(0, jnp.int32)
    array = given if is_tracer(given) else np.asarray(given)
    if array.dtype == bool:
        if is_tracer(array):
            msg = f"{name} is a mask inside a trace; expected indices, whose number is fixed."
            raise SelectionError(msg)
        if array.shape != (n,):
            msg = f"{name} is a mask of shape {array.shape}; expected ({n},), one entry a sample."
            raise SelectionError(msg)
        array = np.flatnonzero(array)
    if array.size == 0:
        return jnp.zeros(0, jnp.int32)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        msg = (
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected indices (m,) or a "
            f"mask ({n},)."
        )
        raise SelectionError(msg)
    if not is_tracer(array):
        if array.min() < 0 or array.max() >= n:
            msg = (
                f"{name} holds indices from {array.min()} to {array.max()}; expected 0 to {n - 1}."
                " Leave out the -1 of a selection that stopped early."
            )
            raise SelectionError(msg)
        if np.unique(array).size != array.size:
            msg = f"{name} holds an index twice; expected every sample at most once."
            raise SelectionError(msg)
    return jnp.asarray(array, jnp.int32)


def _mask(candidates: Any, n: int) -> Array:
    if candidates is None:
        return jnp.ones(n, bool)
    array = candidates if is_tracer(candidates) else np.asarray(candidates)
    if array.dtype == bool and array.shape == (n,):
        return jnp.asarray(array)
    indices = _indices("candidates", array, n)
    return jnp.zeros(n, bool).at[indices].set(True)


def _check_enough(k: int, mask: Array, candidates: Any, chosen: Array) -> None:
    if is_tracer(mask):
        return
    free = int(np.asarray(mask).sum())
    if k <= free:
        return
    where = "the pool" if candidates is None else "candidates"
    msg = (
        f"k={k} and {where} has {free} samples that are not selected yet "
        f"({chosen.shape[0]} are); expected k of at most {free}. Ask for fewer or widen candidates."
    )
    raise SelectionError(msg)
