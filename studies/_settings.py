"""Settings of a study: a documented frozen dataclass, read from ``key=value`` words."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from studies._errors import StudyError

C = TypeVar("C")

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def setting(default: Any, doc: str) -> Any:
    """Declare a field of a study's config: its default and what it means, in one line."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def parse(config: type[C], assignments: Iterable[str]) -> C:
    """Make a config from its defaults and ``key=value`` words.

    Values are read by the field's type: ``steps=300``, ``lr=1e-3``, ``shuffle=no``,
    ``widths=16,256``.

    Raises
    ------
    StudyError
        A word is not ``key=value``, a key is unknown or given twice, or a value does not fit.
    """
    hints = typing.get_type_hints(config)
    names = [f.name for f in dataclasses.fields(config)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals:
            msg = f"Got --set {word!r}; expected KEY=VALUE, for example {names[0]}=..."
            raise StudyError(msg)
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            msg = f"Unknown setting {key!r}; expected one of {', '.join(names)}.{hint}"
            raise StudyError(msg)
        if key in values:
            msg = f"Setting {key!r} was given twice; give it once."
            raise StudyError(msg)
        try:
            values[key] = read(text.strip(), hints[key])
        except ValueError:
            msg = f"{key}={text!r} does not fit; expected {describe(hints[key])}."
            raise StudyError(msg) from None
    return config(**values)


def read(text: str, kind: Any) -> Any:
    """Turn a word into a value of type `kind`; ValueError if it is none."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        [inner] = [o for o in options if o is not type(None)]
        return read(text, inner)
    if origin is Literal:
        if text in options:
            return text
        raise ValueError(text)
    if origin is tuple:
        return tuple(
            read(part.strip(), options[0]) for part in text.strip("(),").split(",") if part
        )
    if kind is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise ValueError(text)
    if kind is int:
        return int(text)
    if kind is float:
        return float(text)
    if kind is str:
        return text
    msg = f"No reader for settings of type {kind}."
    raise TypeError(msg)


def describe(kind: Any) -> str:
    """Say what a value of type `kind` looks like."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        [inner] = [o for o in options if o is not type(None)]
        return f"{describe(inner)}, or none"
    if origin is Literal:
        return f"one of {', '.join(options)}"
    if origin is tuple:
        return f"{describe(options[0])}, or several with commas between"
    return _WORDS[kind]


def show(value: Any) -> str:
    """Write a value as `read` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(show, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value)


def table(config: type) -> str:
    """List the settings of a config with defaults and meaning, one a line."""
    rows = [(f"{f.name}={show(f.default)}", f.metadata["doc"]) for f in dataclasses.fields(config)]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {doc}" for left, doc in rows)
