"""Numbers that the loop passes along: the scalars among them become variables of the run."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.collectors import Field
from ntkstats.recording.live._groups import MEMBER, STEP
from ntkstats.recording.store._arrays import to_numpy

RESERVED = frozenset({STEP, MEMBER, "run", "seed", "attempt", "wall_time", "record_seconds"})
"""Names of axes and coordinates of a recorded Dataset; no variable can be called so."""


def scalars(
    extras: Mapping[str, Any], members: int | None, taken: Container[str]
) -> dict[str, Any]:
    """The numbers among ``extras``, where they are: shape ``()``, or ``(members,)``.

    Everything else (batches, gradients, text) is for collectors only and is left out, and so is
    a name that is already taken. Arrays are copies: their owner may donate or change them.
    """
    shapes = {()} if members is None else {(), (members,)}
    found = {}
    for name, value in extras.items():
        if name in taken or name in RESERVED or not _is_numeric(value):
            continue
        if np.shape(value) in shapes:
            found[name] = value.copy() if isinstance(value, jax.Array) else np.array(value)
    return found


def extra_field(name: str, value: Any) -> Field:
    """The label of a number that the loop passed along."""
    array = to_numpy(name, value)
    return Field(
        name,
        dims=(MEMBER,) if array.ndim else (),
        shape=array.shape,
        dtype=str(array.dtype),
        long_name=name.replace("_", " "),
        units="",  # only the user knows
        attrs={"source": "passed to the recorder"},
    )


def _is_numeric(value: Any) -> bool:
    if isinstance(value, bool | int | float | complex):
        return True
    if not isinstance(value, np.generic | np.ndarray | jax.Array):
        return False
    return jnp.issubdtype(value.dtype, np.number) or jnp.issubdtype(value.dtype, np.bool_)
