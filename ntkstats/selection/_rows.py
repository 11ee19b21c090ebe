"""Rows of a pool, on one device or spread over several.

Selectors are written for the rows that a device holds. What they must know of the others they ask
here: the row of a sample, sums over all rows, the best of all. On one device these are plain
indexing and plain sums; inside `jax.shard_map` they are collectives.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ntkstats.typing import Array, PyTree


@dataclass(frozen=True)
class Rows:
    """The rows of one device.

    Attributes
    ----------
    count
        How many rows this device holds.
    axis
        Name of the mapped axis over which rows are spread; None on one device.
    shards
        Number of devices along that axis.
    """

    count: int
    axis: str | None = None
    shards: int = 1

    @property
    def total(self) -> int:
        """Rows of all devices."""
        return self.count * self.shards

    def numbers(self) -> Array:
        """``(count,)`` numbers of the local rows in the whole pool."""
        return jnp.arange(self.count) + self._start()

    def owns(self, i: Array) -> Array:
        """``(count,)`` True at row ``i`` of the pool, if it is here."""
        return self.numbers() == i

    def take(self, tree: PyTree, i: Array, axis: int = 0) -> PyTree:
        """Row ``i`` (or rows) of the pool of every leaf, known to all devices."""

        def one(leaf: Array) -> Array:
            if self.axis is None:
                return jnp.take(leaf, i, axis=axis)
            local = jnp.clip(i - self._start(), 0, self.count - 1)
            mine = (i >= self._start()) & (i < self._start() + self.count)
            row = jnp.take(leaf, local, axis=axis)
            mine = mine.reshape(mine.shape + (1,) * (row.ndim - axis - mine.ndim))
            return jax.lax.psum(jnp.where(mine, row, jnp.zeros_like(row)), self.axis)

        return jax.tree.map(one, tree)

    def sum(self, values: Array) -> Array:
        """Sum over the leading axis, of all devices."""
        return self._all(jax.lax.psum, jnp.sum(values, axis=0))

    def max(self, values: Array) -> Array:
        """Largest along the leading axis, of all devices."""
        return self._all(jax.lax.pmax, jnp.max(values, axis=0))

    def gather(self, tree: PyTree) -> PyTree:
        """All rows of the pool, on every device."""
        if self.axis is None:
            return tree
        axis = self.axis
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis, tiled=True), tree)

    def scatter(self, values: Array) -> Array:
        """The local rows of an array that every device holds whole."""
        if self.axis is None:
            return values
        return jax.lax.dynamic_slice_in_dim(values, self._start(), self.count)

    def best(self, score: Array, tie: Array | None = None) -> tuple[Array, Array]:
        """Index of the largest score and that score.

        Among equal scores the largest ``tie`` wins, among equal ties the first row.
        """
        largest = self.max(score)
        among = score == largest
        if tie is not None:
            second = jnp.where(among & ~jnp.isnan(tie), tie, -jnp.inf)
            among = among & (second == self.max(second))
        first = jnp.min(jnp.where(among, self.numbers(), self.total))
        first = self._all(jax.lax.pmin, first)
        # Scores that are all NaN have no best; the caller sees a score of -inf before that.
        return jnp.minimum(first, self.total - 1).astype(jnp.int32), largest

    def _start(self) -> Array | int:
        return 0 if self.axis is None else jax.lax.axis_index(self.axis) * self.count

    def _all(self, collective: object, value: Array) -> Array:
        return value if self.axis is None else collective(value, self.axis)  # type: ignore[operator]
