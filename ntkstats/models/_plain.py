"""Adapter for plain functions ``f(params, x)`` and ``f(params, state, x)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ntkstats._compat import loaded
from ntkstats.errors import ModelError
from ntkstats.models._adapter import Adapter
from ntkstats.models._evaluation import describe
from ntkstats.typing import Inputs, PyTree

STATE_ATTRIBUTES = ("model_state", "batch_stats")
"""Where training states keep what is not a parameter."""


def plain_adapter(
    function: Callable[..., Any],
    call_kwargs: Mapping[str, Any],
    *,
    has_state: bool,
    kind: str = "function",
) -> Adapter:
    """Adapt a function of parameters (and state) and inputs."""
    name = getattr(function, "__name__", "model")
    name = name if name.isidentifier() else "model"

    def call(params: PyTree, rest: PyTree, x: Inputs) -> Any:
        if has_state:
            return function(params, rest, x, **call_kwargs)
        return function(params, x, **call_kwargs)

    return Adapter(
        unpack=_unpack_pair if has_state else _unpack_params,
        call=call,
        name=name,
        description=describe(f"{kind} {name}", call_kwargs),
    )


def _refuse_nnx(obj: Any) -> None:
    nnx = loaded("flax.nnx")
    if nnx is not None and isinstance(obj, nnx.Module):
        msg = (
            f"a plain function was given as model and an nnx module ({type(obj).__name__}) as "
            "what holds its parameters; expected a pytree of arrays. Build the model from the "
            'module itself: as_model(module), with call_kwargs={"method": function} if it is '
            "called in another way."
        )
        raise ModelError(msg)


def _unpack_params(obj: Any) -> tuple[PyTree, PyTree]:
    _refuse_nnx(obj)
    return getattr(obj, "params", obj), None


def _unpack_pair(obj: Any) -> tuple[PyTree, PyTree]:
    _refuse_nnx(obj)
    for attribute in STATE_ATTRIBUTES:
        if hasattr(obj, "params") and hasattr(obj, attribute):
            return obj.params, getattr(obj, attribute)
    if type(obj) is tuple and len(obj) == 2:
        return obj
    msg = (
        f"has_state=True was given and the model was split on a {type(obj).__name__}; expected a "
        "pair (params, state) or an object with .params and one of "
        f"{', '.join('.' + a for a in STATE_ATTRIBUTES)}. Say with split= how to get the pair."
    )
    raise ModelError(msg)
