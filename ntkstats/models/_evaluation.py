"""How evaluation mode is switched on through call keywords."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ntkstats.errors import ModelError

TRAINING_SWITCHES = ("train", "training", "is_training")
"""Keywords that are False in evaluation mode."""


def switches(*, dropout: bool) -> dict[str, bool]:
    """Values of the mode keywords; with `dropout` masks are drawn, statistics stay running."""
    return {
        **dict.fromkeys(TRAINING_SWITCHES, dropout),
        "deterministic": not dropout,
        "use_running_average": True,
    }


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Parameters of a callable by name; empty if Python cannot tell."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def mode_kwargs(
    function: Callable[..., Any], given: Mapping[str, Any], *, dropout: bool
) -> dict[str, bool]:
    """Mode keywords that `function` takes and the user did not give."""
    taken = parameters_of(function)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: value
        for name, value in switches(dropout=dropout).items()
        if name in taken and taken[name].kind in kinds and name not in given
    }


def method_of(module: Any, method: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """Settle how a module is called: ``f(module, x, ...)``.

    Raises
    ------
    ModelError
        If the module has no such method.
    """
    if method is None and callable(module):
        return lambda rebuilt, *args, **kwargs: rebuilt(*args, **kwargs)
    if isinstance(method, str) and callable(getattr(module, method, None)):
        return lambda rebuilt, *args, **kwargs: getattr(rebuilt, method)(*args, **kwargs)
    if callable(method):
        return method
    wanted = "no __call__" if method is None else f"no method {method!r}"
    msg = (
        f"{type(module).__name__} has {wanted}; expected a module that can be called on inputs. "
        'Say with call_kwargs={"method": ...} which method, or which function (module, x), to use.'
    )
    raise ModelError(msg)


def signature_source(module: Any, method: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """Return the callable whose keywords a call through `method_of` may use."""
    if method is None:
        return module
    return getattr(module, method) if isinstance(method, str) else method


def describe(what: str, settings: Mapping[str, Any]) -> str:
    """``"MLP"`` and ``{"train": False}`` as ``"MLP (train=False)"``."""
    listed = ", ".join(f"{name}={_short(value)}" for name, value in sorted(settings.items()))
    return f"{what} ({listed})" if listed else what


def _short(value: Any) -> str:
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    # No addresses: the description is stored and compared between runs.
    return str(getattr(value, "__qualname__", type(value).__name__))
