"""Arrays as bytes, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from ntkstats.errors import StoreError

PART_BYTES = 1 << 26
"""Largest piece of an array in one row: SQLite refuses values of 10^9 bytes."""


def to_numpy(name: str, value: object) -> np.ndarray:
    """A number or array on the host, in a dtype that NumPy itself knows.

    Formats from outside NumPy (bfloat16, float8, int4) are widened to float32 or int32, which
    hold every one of their values.

    Raises
    ------
    StoreError
        The value is not numeric.
    """
    array = np.asarray(value)
    if array.dtype.kind in "biufc":
        return array
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(np.float32)
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(np.int32)
    msg = f"{name!r} has dtype {array.dtype}; only numbers and booleans can be recorded"
    raise StoreError(msg)


def encode(array: np.ndarray) -> Iterator[tuple[int, str, str, memoryview]]:
    """Rows ``(part, dtype, shape, data)`` that hold ``array`` as little-endian bytes."""
    dtype = array.dtype.newbyteorder("<")
    data = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data
    shape = json.dumps(array.shape)
    for part, start in enumerate(range(0, max(len(data), 1), PART_BYTES)):
        yield part, dtype.str, shape, data[start : start + PART_BYTES]


def decode(dtype: str, shape: str, parts: list[bytes]) -> np.ndarray:
    """The array that `encode` was given, in native byte order."""
    sizes = tuple(json.loads(shape))
    flat = np.frombuffer(bytearray().join(parts), np.dtype(dtype))
    return flat.reshape(sizes).astype(flat.dtype.newbyteorder("="), copy=False)
