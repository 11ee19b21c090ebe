"""Adapter for flax nnx modules; the live module is read and never touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ntkstats.errors import ModelError
from ntkstats.models._adapter import Adapter
from ntkstats.models._evaluation import (
    describe,
    method_of,
    mode_kwargs,
    parameters_of,
    signature_source,
    switches,
)
from ntkstats.typing import Array, Inputs, PyTree


def nnx_module_of(obj: Any) -> nnx.Module | None:
    """Return the module, or the one that an object (`.model`) or a tuple holds, or None."""
    if isinstance(obj, nnx.Module):
        return obj
    if isinstance(obj, tuple):
        modules = [entry for entry in obj if isinstance(entry, nnx.Module)]
        return modules[0] if len(modules) == 1 else None
    model = getattr(obj, "model", None)
    return model if isinstance(model, nnx.Module) else None


def nnx_adapter(module: nnx.Module, call_kwargs: Mapping[str, Any], key: Array | None) -> Adapter:
    """Adapt modules of the kind of `module`; it serves for its type only, not its weights."""
    kwargs = dict(call_kwargs)
    method = kwargs.pop("method", None)
    invoke = method_of(module, method)
    dropout = key is not None
    mode = mode_kwargs(signature_source(module, method), kwargs, dropout=dropout)
    kwargs |= mode
    flags = {
        name: value
        for name, value in switches(dropout=dropout).items()
        if name in ("deterministic", "use_running_average")
    }

    evaluated = _Evaluated(flags)

    def unpack(obj: Any) -> tuple[PyTree, PyTree]:
        live = nnx_module_of(obj)
        if live is None:
            msg = (
                f"the model was split on a {type(obj).__name__}; expected the nnx module, an "
                "object with .model, or a tuple with exactly one module. Say with split= how to "
                "get the module from it."
            )
            raise ModelError(msg)
        graph, params, keys, counts, others = evaluated(live)
        rest = {
            "graph": graph,
            "streams": (keys, counts) if key is None else _reseeded(key, keys, counts),
            "variables": others,
        }
        return params, rest

    def call(params: PyTree, rest: PyTree, x: Inputs) -> Any:
        # Merged inside whatever transformation runs, so that writes stay at its trace level.
        rebuilt = nnx.merge(rest["graph"], params, *rest["streams"], rest["variables"])
        return invoke(rebuilt, x, **kwargs)

    name = type(module).__name__
    return Adapter(
        unpack=unpack,
        call=call,
        name=name,
        description=describe(f"flax nnx module {name}", {**call_kwargs, **flags, **mode}),
        one_mask=dropout,
    )


class _Evaluated:
    """Splits modules as they are in evaluation mode.

    Rebuilding a module takes several times as long as splitting it, so the graph that the mode
    leads to is remembered.

    Parameters
    ----------
    flags
        Attributes that set the mode.
    """

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self._flags = flags
        self._known: tuple[Any, Any] | None = None  # a graph, and the one it becomes

    def __call__(self, live: nnx.Module) -> tuple[Any, PyTree, PyTree, PyTree, PyTree]:
        """Return graph, parameters, keys of random streams, their counts, and other variables."""
        graph, *variables = _split(live)
        if self._known is not None and self._known[0] == graph:
            return (self._known[1], *variables)
        other, *others = _split(_twin(live, self._flags))
        structure: Any = jax.tree.structure(variables)
        self._known = (graph, other) if structure == jax.tree.structure(others) else None
        return (other, *others)


def _split(module: nnx.Module) -> tuple[Any, PyTree, PyTree, PyTree, PyTree]:
    parts: Any = nnx.split(module, nnx.Param, nnx.RngKey, nnx.RngCount, ...)
    graph, *variables = parts
    params, keys, counts, others = map(nnx.to_pure_dict, variables)
    return graph, params, keys, counts, others


def _twin(live: nnx.Module, flags: Mapping[str, bool]) -> nnx.Module:
    """Return a module over the same arrays, with nodes and hence mode flags of its own."""
    twin = nnx.merge(*nnx.split(live))
    twin.set_attributes(raise_if_not_found=False, **flags)
    # What nnx.view does, which is younger than the oldest flax that is supported.
    for _, module in nnx.iter_modules(twin):
        set_view = getattr(module, "set_view", None)
        if callable(set_view):
            taken = parameters_of(set_view)
            set_view(**{name: value for name, value in flags.items() if name in taken})
    return twin


def _reseeded(key: Array, keys: PyTree, counts: PyTree) -> tuple[PyTree, PyTree]:
    """Give every random stream its own key, counted from zero."""
    leaves, treedef = jax.tree.flatten(keys)
    if not leaves:
        msg = (
            "key= was given and the nnx module holds no random stream. Build its dropout layers "
            "with rngs=, or drop key= for evaluation mode."
        )
        raise ModelError(msg)
    typed = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    fresh = [
        jax.random.split(jax.random.fold_in(typed, i), leaf.shape)
        if leaf.shape
        else jax.random.fold_in(typed, i)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, fresh), jax.tree.map(jnp.zeros_like, counts)
