"""The NTK as a kernel over a pool: columns on demand, or sketched features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.kernels import ntk_diagonal
from ntkstats.models import Model
from ntkstats.selection._columns import Features, Replicated
from ntkstats.selection._rows import Rows
from ntkstats.typing import Array, Inputs, Params, PyTree, State

CHUNK = 256
"""Rows of the pool that are differentiated at once."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NTKColumns:
    """The trace NTK of a network, exact, a column at a time; from `ntk_columns`.

    Attributes
    ----------
    x
        Inputs, leaves ``(N, ...)``.
    entries
        ``(N,)`` diagonal.
    network
        Parameters and state.
    apply
        ``apply(params, state, x) -> (N, C)``.
    """

    x: Inputs
    entries: Array
    network: Replicated
    apply: Callable[[Params, State, Inputs], Array] = field(metadata={"static": True})

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.entries.shape[0])

    def diagonal(self) -> Array:
        """``(n,)`` squared norms of the Jacobians."""
        return self.entries

    def anchor(self, i: Array, rows: Rows) -> PyTree:
        """The inputs of sample ``i``."""
        return rows.take(self.x, i)

    def column(self, anchor: PyTree) -> Array:
        """``(n,)`` one VJP and one JVP through the pool for each output."""
        params, state = self.network.value
        one = jax.tree.map(lambda leaf: leaf[None], anchor)
        out, pull = jax.vjp(lambda p: self.apply(p, state, one), params)

        def of_output(c: Array, total: Array) -> Array:
            (direction,) = pull(jax.nn.one_hot(c, out.shape[1], dtype=out.dtype)[None])

            def push(x: Inputs) -> Array:
                sample = jax.tree.map(lambda leaf: leaf[None], x)
                _, tangent = jax.jvp(
                    lambda p: self.apply(p, state, sample), (params,), (direction,)
                )
                return tangent[0, c]

            return total + jax.lax.map(push, self.x, batch_size=CHUNK)

        return jax.lax.fori_loop(0, out.shape[1], of_output, jnp.zeros_like(self.entries))

    def times(self, v: Array, rows: Rows) -> Array:
        """``K v``, a column at a time: costs as much as the whole kernel."""
        everyone = rows.gather(v)

        def add(y: Array, total: Array) -> Array:
            column = self.column(self.anchor(y, rows))
            return total + jnp.tensordot(column, everyone[y], axes=0)

        return jax.lax.fori_loop(0, rows.total, add, jnp.zeros_like(v))


def ntk_columns(
    model: Model, params: Params, state: State, x: Inputs, *, head: str | None = None
) -> NTKColumns:
    """The empirical NTK over a pool, exact and never written out.

    The trace kernel ``sum_c <J_c(x), J_c(y)>``. A column costs one VJP and a JVP through the whole
    pool for each output; nothing larger than the pool is held. For selectors that ask for many
    columns `ntk_features` is cheaper, for pools of some thousands
    ``dense(empirical_ntk(..., outputs="trace").matrix)``.

    Parameters
    ----------
    model, params, state
        From [`as_model`][ntkstats.as_model] and its ``split``.
    x
        The pool's inputs, leaves ``(N, ...)``.
    head
        Which output; may be left out when there is one.

    Raises
    ------
    SelectionError
        The model's samples interact, or it has several heads and none is named.
    KernelError, HeadError, ModelError, ProbeError, ParamsError
        As for [`ntk_diagonal`][ntkstats.kernels.ntk_diagonal].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats import as_model
    >>> model = as_model(lambda params, x: x @ params)
    >>> kernel = ntk_columns(model, *model.split(jnp.ones((3, 2))), jnp.eye(3))
    >>> kernel.column(jnp.array([1.0, 0.0, 0.0])).tolist()
    [2.0, 0.0, 0.0]
    """
    apply = _head(model, params, state, x, head)
    entries = ntk_diagonal(model, params, state, x, head=head, outputs="trace")
    return NTKColumns(jax.tree.map(jnp.asarray, x), entries, Replicated((params, state)), apply)


def ntk_features(
    key: Array,
    model: Model,
    params: Params,
    state: State,
    x: Inputs,
    *,
    dim: int = 512,
    head: str | None = None,
) -> Features:
    """Random features of the empirical NTK: its Jacobian, projected.

    Feature j of a sample is the derivative of its outputs along a random direction ``r_j`` of
    parameter space, with random signs over outputs. The inner products estimate the trace kernel
    without bias, with a relative error of about ``sqrt(2 / dim)`` on the diagonal. One JVP
    through the pool a feature; N times ``dim`` numbers, whatever the number of parameters.

    Parameters
    ----------
    key
        PRNG key of the directions and signs.
    model, params, state, x, head
        As for `ntk_columns`.
    dim
        Number of features.

    Raises
    ------
    SelectionError
        ``dim`` is below 1, the model's samples interact, or it has several heads and none is
        named.

    References
    ----------
    Johnson and Lindenstrauss 1984; Holzmuller et al. 2023, "A framework and benchmark for deep
    batch active learning for regression", for sketched gradients in selection.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import as_model
    >>> model = as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((3, 2)))
    >>> phi = ntk_features(jax.random.key(0), model, params, state, jnp.eye(3), dim=4000).phi
    >>> bool(jnp.allclose(phi @ phi.T, 2 * jnp.eye(3), atol=0.3))
    True
    """
    if not dim >= 1:
        msg = f"dim={dim!r}; expected at least 1."
        raise SelectionError(msg)
    apply = _head(model, params, state, x, head)
    return Features(_project(apply, key, params, state, jax.tree.map(jnp.asarray, x), dim))


def _project(
    apply: Callable[..., Array], key: Array, params: Params, state: State, x: Inputs, dim: int
) -> Array:
    @jax.jit
    def run(key: Array, params: Params, state: State, x: Inputs) -> Array:
        leaves, tree = jax.tree.flatten(params)

        def feature(key: Array) -> Array:
            signs_key, *keys = jax.random.split(key, len(leaves) + 1)
            normal = [
                jax.random.normal(k, leaf.shape, leaf.dtype)
                for k, leaf in zip(keys, leaves, strict=True)
            ]
            direction = jax.tree.unflatten(tree, normal)

            def push(sample: Inputs) -> Array:
                one = jax.tree.map(lambda leaf: leaf[None], sample)
                _, tangent = jax.jvp(lambda p: apply(p, state, one), (params,), (direction,))
                return tangent[0]

            derivative = jax.lax.map(push, x, batch_size=CHUNK)
            signs = jax.random.rademacher(signs_key, derivative.shape[1:], derivative.dtype)
            return derivative @ signs

        phi = jax.lax.map(feature, jax.random.split(key, dim))
        return phi.T / jnp.sqrt(jnp.asarray(dim, phi.dtype))

    return run(key, params, state, x)


def _head(
    model: Model, params: Params, state: State, x: Inputs, head: str | None
) -> Callable[[Params, State, Inputs], Array]:
    """``apply(params, state, x) -> (N, C)`` of one head."""
    if model.coupled:
        msg = (
            f"the samples of {model.name} interact (coupled=True), so it has no kernel column of "
            "one sample; expected a model in evaluation mode."
        )
        raise SelectionError(msg)
    one = jax.tree.map(lambda leaf: leaf[:1], x)
    heads = sorted(jax.eval_shape(model.apply, params, state, one))
    if head is None and len(heads) == 1:
        head = heads[0]
    if head not in heads:
        msg = f"head={head!r}; expected one of {heads}."
        raise SelectionError(msg)
    return _Head(model.apply, head)


@dataclass(frozen=True)
class _Head:
    """One head of a model, equal to itself made again: kernels are static by it."""

    apply: Callable[..., Any]
    head: str | None

    def __call__(self, params: Params, state: State, x: Inputs) -> Array:
        """``(N, C)`` outputs."""
        out = self.apply(params, state, x)[self.head]
        return out.reshape(out.shape[0], -1)
