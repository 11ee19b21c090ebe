"""Kernels whose parameters are shared out over devices; runs inside `jax.shard_map`.

A kernel is a sum over parameters: every device adds up its own, and the sums are added.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import jax
import numpy as np

from ntkstats._lanes import Index
from ntkstats.kernels import _tiles
from ntkstats.kernels._engines import Engine, ReferenceEngine
from ntkstats.kernels._tiles import Side, Stream
from ntkstats.kernels._types import Task
from ntkstats.kernels.contraction._factors import Factor
from ntkstats.typing import Array, Inputs, Params, State

Pair: TypeAlias = tuple[Stream, Stream]


def gram(
    axis: str,
    devices: int,
    tasks: tuple[Task, Task],
    sides: tuple[Side, Side],
    streams: Sequence[Pair],
    *,
    symmetric: bool,
) -> tuple[Array, Array]:
    """The whole kernel on every device, see `_tiles.gram`.

    Parameters
    ----------
    axis, devices
        Name of the axis of the mesh, and number of devices along it.
    tasks, sides, symmetric
        See `_tiles.gram`; the same on all devices.
    streams
        Groups of parameters, at most one for each device.
    """
    if len(streams) == 1 and isinstance(streams[0][0].engine, ReferenceEngine):
        streams = _groups(streams[0], sides[0].params, devices)

    def own(group: Sequence[Pair], sides: tuple[Side, Side]) -> tuple[Array, Array]:
        return _tiles.gram(tasks, sides, group, symmetric=symmetric)

    groups: list[list[Pair]] = [[pair] for pair in streams]
    groups += [[] for _ in range(devices - len(groups))]
    branches = [partial(own, group) for group in groups]
    parts = jax.lax.switch(jax.lax.axis_index(axis), branches, sides)
    return jax.lax.psum(parts, axis)


def _groups(pair: Pair, params: Params, devices: int) -> list[Pair]:
    """Rows of all arrays as a group for each device, of about equal size."""
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(params)]
    middles = np.cumsum(sizes) - 0.5 * np.asarray(sizes)
    owners = np.minimum(devices - 1, (devices * middles / max(1, sum(sizes))).astype(int))
    groups = [frozenset(np.flatnonzero(owners == k).tolist()) for k in np.unique(owners)]
    left, right = pair
    return [
        (
            left._replace(engine=_Some(left.engine, group)),
            right._replace(engine=_Some(right.engine, group)),
        )
        for group in groups
    ]


@dataclass(frozen=True, eq=False)
class _Some:
    """An engine that leaves the other parameter arrays out; so does the compiler."""

    engine: Engine
    leaves: frozenset[int]

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def kinds(self) -> Hashable:
        return self.engine.kinds, self.leaves

    def tile(
        self, params: Params, state: State, x: Inputs, start: Index, cotangents: Array
    ) -> Sequence[Factor]:
        factors = self.engine.tile(params, state, x, start, cotangents)
        return [factor for factor in factors if factor.leaf in self.leaves]
