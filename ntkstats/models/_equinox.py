"""Adapter for Equinox modules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax

from ntkstats.errors import ModelError
from ntkstats.models._adapter import Adapter
from ntkstats.models._evaluation import (
    describe,
    method_of,
    parameters_of,
    signature_source,
)
from ntkstats.typing import Array, Inputs, PyTree


def is_equinox_module(obj: Any) -> bool:
    """Tell whether an object is a module and not a function wrapped by Equinox."""
    return isinstance(obj, eqx.Module) and not hasattr(obj, "__wrapped__")


def equinox_pair_of(obj: Any) -> tuple[eqx.Module, eqx.nn.State | None] | None:
    """Return the module and its state, found in a module or in a tuple with one module."""
    if is_equinox_module(obj):
        return obj, None
    if not isinstance(obj, tuple):
        return None
    modules = [entry for entry in obj if is_equinox_module(entry)]
    states = [entry for entry in obj if isinstance(entry, eqx.nn.State)]
    if len(modules) != 1 or len(states) > 1:
        return None
    return modules[0], states[0] if states else None


def equinox_adapter(
    module: eqx.Module, call_kwargs: Mapping[str, Any], key: Array | None
) -> Adapter:
    """Adapt modules of the kind of `module`; it serves for its type only, not its weights."""
    kwargs = dict(call_kwargs)
    method = kwargs.pop("method", None)
    invoke = method_of(module, method)
    taken = parameters_of(signature_source(module, method))
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    if key is not None and "key" not in taken and not takes_any:
        msg = (
            f"key= was given and {type(module).__name__} takes no key. Let it take one and pass "
            "it on to its dropout layers, or drop key= for inference mode."
        )
        raise ModelError(msg)
    required = {n for n, p in taken.items() if p.default is inspect.Parameter.empty}
    needs_key = "key" in required
    needs_state = "state" in required and "state" not in kwargs
    if "key" not in kwargs and (key is not None or needs_key):
        kwargs["key"] = key

    def unpack(obj: Any) -> tuple[PyTree, PyTree]:
        pair = equinox_pair_of(obj)
        if pair is None:
            msg = (
                f"the model was split on a {type(obj).__name__}; expected the Equinox module, "
                "(module, eqx.nn.State), or a tuple with exactly one module. Say with split= how "
                "to get these from it."
            )
            raise ModelError(msg)
        live, state = pair
        if state is None and needs_state:
            msg = (
                f"{type(live).__name__} takes a state and none was given; expected "
                "(module, state), as eqx.nn.make_with_state returns them."
            )
            raise ModelError(msg)
        return _inference(live, dropout=key is not None), state

    def call(rebuilt: PyTree, state: PyTree, x: Inputs) -> Any:
        if state is None:
            return invoke(rebuilt, x, **kwargs)
        # State.set invalidates the object it is called on; this one was rebuilt for this call.
        result = invoke(rebuilt, x, state, **kwargs)
        if not (isinstance(result, tuple) and len(result) == 2):
            msg = (
                f"the stateful module returned a {type(result).__name__}; expected "
                "(output, state), Equinox's convention."
            )
            raise ModelError(msg)
        return result[0]

    name = type(module).__name__
    mode = {"inference": True} if key is None else {"inference": "except dropout"}
    return Adapter(
        unpack=unpack,
        call=call,
        name=name,
        description=describe(f"equinox module {name}", {**call_kwargs, **mode}),
        per_sample=True,
        one_mask=key is not None,
    )


def _inference(module: eqx.Module, *, dropout: bool) -> eqx.Module:
    """Return the module in inference mode; with `dropout` only its stateful layers are."""
    if not dropout:
        return eqx.nn.inference_mode(module)

    def is_stateful(node: Any) -> bool:
        # Sequential only passes state on; its dropout layers must stay on.
        return isinstance(node, eqx.nn.StatefulLayer) and not isinstance(node, eqx.nn.Sequential)

    training = eqx.nn.inference_mode(module, value=False)
    return jax.tree.map(
        lambda node: eqx.nn.inference_mode(node) if is_stateful(node) else node,
        training,
        is_leaf=is_stateful,
    )
