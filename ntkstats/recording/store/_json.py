"""Configs and other facts as JSON, and what differs between two of them."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.errors import StoreError

_SHOWN = 80  # characters of a value in a message


def plain(value: Any, where: str) -> Any:
    """``value`` made of dicts, lists, strings, numbers, booleans and None only.

    Dataclasses become dicts, enumeration members their values, arrays nested lists.

    Raises
    ------
    StoreError
        Something in it has no such form; the message says where.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return plain(value.value, where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return {name: plain(getattr(value, name), f"{where}.{name}") for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((plain(entry, where) for entry in value), key=repr)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array) and _is_numeric(value):
        return np.asarray(value).tolist()
    msg = (
        f"{where} is a {type(value).__name__} and cannot be stored as JSON; "
        f"give numbers, strings, lists, dicts or dataclasses (for a function, its name)"
    )
    raise StoreError(msg)


def _is_numeric(value: Any) -> bool:
    # Typed PRNG keys have a dtype of their own that NumPy does not know.
    is_key = jnp.issubdtype(value.dtype, jax.dtypes.extended)
    return not is_key and np.dtype(value.dtype).kind in "biufU"


def dumps(value: Any, where: str = "value") -> str:
    """``plain(value)`` as JSON text."""
    return json.dumps(plain(value, where))


def differences(stored: Any, given: Any, where: str) -> Iterator[str]:
    """One sentence for each place at which two plain values differ."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(k for k in given if k not in stored)]:
            inner = f"{where}.{key}"
            if key not in given:
                yield f"{inner} was {_short(stored[key])} and is now missing"
            elif key not in stored:
                yield f"{inner} is new ({_short(given[key])})"
            else:
                yield from differences(stored[key], given[key], inner)
    elif (was := json.dumps(stored)) != (now := json.dumps(given)):
        lists = isinstance(stored, list) and isinstance(given, list)
        if lists and len(stored) == len(given) and max(len(was), len(now)) > _SHOWN:
            for i, (a, b) in enumerate(zip(stored, given, strict=True)):
                yield from differences(a, b, f"{where}[{i}]")
            return
        at = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
        yield f"{where} was {_around(was, at)} and is now {_around(now, at)}"


def _short(value: Any) -> str:
    return _around(json.dumps(value), 0)


def _around(text: str, at: int) -> str:
    """Some 80 characters of ``text``; the one at ``at`` is among them."""
    if len(text) <= _SHOWN:
        return text
    start = max(0, min(at - _SHOWN // 2, len(text) - _SHOWN + 3))
    end = start + _SHOWN - (6 if start else 3)
    head, tail = ("..." if start else ""), ("..." if end < len(text) else "")
    return f"{head}{text[start:end]}{tail}"
