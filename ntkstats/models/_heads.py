"""From whatever a model returns to named heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ntkstats.errors import HeadError, ModelError
from ntkstats.models._static import is_array
from ntkstats.typing import Outputs

DEFAULT_HEAD = "output"

IsArray: TypeAlias = Callable[[Any], bool]

Heads: TypeAlias = Sequence[str] | Mapping[str, Callable[[Any], Any]] | None

_HOW = (
    'Name the heads with heads=("actor", "critic"), or pick them with '
    'heads={"actor": lambda out: out[0].logits}.'
)


def head_of(heads: Iterable[str], head: str | None) -> str:
    """Settle which head is meant.

    Parameters
    ----------
    heads
        Names of the model's heads, e.g. the keys that `check_model` returned.
    head
        The name asked for; None stands for the only head.

    Returns
    -------
    str
        One of `heads`.

    Raises
    ------
    HeadError
        If there is no such head, or none was named and there are several.

    Examples
    --------
    >>> head_of(["output"], None)
    'output'
    >>> head_of(["actor", "critic"], "critic")
    'critic'
    """
    names = list(heads)
    listed = ", ".join(map(repr, names))
    if head is None:
        if len(names) == 1:
            return names[0]
        msg = (
            f"head=None was given and the model has {len(names)} heads ({listed}); kernels are "
            "taken per head and never summed silently. Choose one with head=."
        )
        raise HeadError(msg)
    if head not in names:
        msg = f"head={head!r} was given; the model has {listed}. Choose one of these names."
        raise HeadError(msg)
    return head


def head_picker(heads: Heads, *, is_array: IsArray = is_array) -> Callable[[Any], Outputs]:
    """Return the function from a model's raw output to ``{head: array}``.

    Parameters
    ----------
    heads
        As for `as_model`.
    is_array
        Tells the arrays of the model's framework.

    Raises
    ------
    ModelError
        At once if `heads` is not understood; when called, if the output does not fit.
    """
    if heads is None:
        return lambda raw: _by_itself(raw, is_array)
    if isinstance(heads, Mapping):
        pickers = dict(heads)
        if not pickers or not all(callable(picker) for picker in pickers.values()):
            msg = (
                f"heads={heads!r} was given; expected a non-empty mapping from head names to "
                f"functions of the raw output. {_HOW}"
            )
            raise ModelError(msg)
        _check_names(pickers)
        return lambda raw: _arrays({name: pick(raw) for name, pick in pickers.items()}, is_array)
    if isinstance(heads, str) or not isinstance(heads, Sequence) or not heads:
        msg = f"heads={heads!r} was given; expected a sequence of names or a mapping. {_HOW}"
        raise ModelError(msg)
    names = tuple(heads)
    _check_names(names)
    if len(set(names)) != len(names):
        msg = f"heads={heads!r} names a head twice. Give every head its own name."
        raise ModelError(msg)
    return lambda raw: _named(raw, names, is_array)


def _by_itself(raw: Any, is_array: IsArray) -> Outputs:
    if is_array(raw):
        return {DEFAULT_HEAD: raw}
    if isinstance(raw, Mapping):
        _check_names(raw)
        return _arrays(dict(raw), is_array)
    if isinstance(raw, tuple) and hasattr(raw, "_fields"):
        return _arrays(dict(zip(raw._fields, raw, strict=True)), is_array)
    if isinstance(raw, tuple | list):
        msg = f"the model returns a {type(raw).__name__} of {len(raw)} without names. {_HOW}"
        raise ModelError(msg)
    msg = (
        f"the model returns a {type(raw).__name__}; expected an array, a dict of arrays or a "
        f"namedtuple of arrays. {_HOW}"
    )
    raise ModelError(msg)


def _named(raw: Any, names: tuple[str, ...], is_array: IsArray) -> Outputs:
    if is_array(raw) and len(names) == 1:
        return {names[0]: raw}
    if isinstance(raw, tuple) and hasattr(raw, "_fields"):
        fields = dict(zip(raw._fields, raw, strict=True))
        # Fields may be selected by their own names; other names are given in order.
        raw = fields if set(names) <= set(fields) else tuple(raw)
    if isinstance(raw, Mapping):
        missing = [name for name in names if name not in raw]
        if missing:
            msg = (
                f"heads={names!r} asks for {missing}; the model returns "
                f"{sorted(map(str, raw))}. Use these names, or a mapping to rename them."
            )
            raise ModelError(msg)
        return _arrays({name: raw[name] for name in names}, is_array)
    if isinstance(raw, tuple | list) and len(raw) == len(names):
        return _arrays(dict(zip(names, raw, strict=True)), is_array)
    given = f"{type(raw).__name__} of {len(raw)}" if isinstance(raw, tuple | list) else "single"
    msg = (
        f"heads={names!r} has {len(names)} names and the model returns a {given} "
        f"{'entries' if isinstance(raw, tuple | list) else type(raw).__name__}. {_HOW}"
    )
    raise ModelError(msg)


def _arrays(outputs: Mapping[str, Any], is_array: IsArray) -> Outputs:
    if not outputs:
        msg = f"the model returns no heads at all; expected at least one array. {_HOW}"
        raise ModelError(msg)
    for name, value in outputs.items():
        if not is_array(value):
            msg = (
                f"the head {name!r} is a {type(value).__name__}; expected one array "
                f"(N, *out). {_HOW}"
            )
            raise ModelError(msg)
    return dict(outputs)


def _check_names(names: Iterable[Any]) -> None:
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            msg = (
                f"{name!r} cannot be a head: names become suffixes of record fields such as "
                f"entropy_actor, so they must be identifiers. {_HOW}"
            )
            raise ModelError(msg)
