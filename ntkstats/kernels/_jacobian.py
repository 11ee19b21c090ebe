"""Rows of the output Jacobian, one tile of samples and cotangents at a time.

Everything the reference engine computes is built from these rows: row ``(n, r)`` is
``V[n, r] . d f(x_n) / d theta`` for a cotangent ``V[n, r]`` in R^C.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ntkstats.models import Model
from ntkstats.typing import Array, Inputs, Params, PyTree, State


def head_outputs(model: Model, head: str, params: Params, state: State, x: Inputs) -> Array:
    """Outputs of one head, flattened to ``(N, C)``."""
    out = model.apply(params, state, x)[head]
    return out.reshape(out.shape[0], -1)


def jacobian_rows(
    model: Model, head: str, params: Params, state: State, x: Inputs, cotangents: Array
) -> PyTree:
    """Jacobian rows of independent samples.

    Parameters
    ----------
    model, head, params, state
        What is differentiated.
    x
        Inputs of the tile, leaves ``(n, ...)``.
    cotangents
        ``(n, r, C)``.

    Returns
    -------
    PyTree
        Like ``params``, leaves ``(n, r, *leaf.shape)``.
    """

    def rows_of_one(x_one: Inputs, v: Array) -> PyTree:
        batch = jax.tree.map(lambda leaf: leaf[None], x_one)
        out, pull = jax.vjp(lambda p: head_outputs(model, head, p, state, batch)[0], params)
        return jax.vmap(lambda row: pull(row.astype(out.dtype))[0])(v)

    return jax.vmap(rows_of_one)(x, cotangents)


def jacobian_rows_coupled(
    model: Model,
    head: str,
    params: Params,
    state: State,
    x: Inputs,
    index: Array,
    cotangents: Array,
) -> PyTree:
    """Jacobian rows of samples that interact: the whole batch is pulled back for each row.

    Parameters
    ----------
    model, head, params, state
        What is differentiated.
    x
        **All** inputs, leaves ``(N, ...)``.
    index
        ``(n,)`` samples of the tile.
    cotangents
        ``(n, r, C)``.

    Returns
    -------
    PyTree
        Like ``params``, leaves ``(n, r, *leaf.shape)``.
    """
    out, pull = jax.vjp(lambda p: head_outputs(model, head, p, state, x), params)

    def row(i: Array, v: Array) -> PyTree:
        return pull(jnp.zeros_like(out).at[i].set(v.astype(out.dtype)))[0]

    return jax.vmap(jax.vmap(row, in_axes=(None, 0)))(index, cotangents)
