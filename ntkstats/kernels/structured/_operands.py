"""Operands of the last product behind a gradient, brought to one form.

Whatever the product was (matrix product, convolution, lookup), its operands become arrays
``(..., B, T, d)``: batch entries, positions summed over, and the operand's own width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from ntkstats._compat import Variable
from ntkstats.kernels.structured._layout import product_size
from ntkstats.typing import Array


@dataclass(frozen=True)
class Patches:
    """Windows of the left operand of a convolution, one for each entry of its result.

    The convolution is
    ``out[b, f, o] = sum_{c, k} lhs[b, c, o * stride + k * spacing] rhs[f, c, k]``.
    Windows have axes ``(g, b, o..., c, k...)`` with ``g`` groups of the batch axis.

    Attributes
    ----------
    axes
        Positions of b, c and the spatial axes in the operand.
    outer, inner
        Entries of ``o`` and ``k`` along each spatial axis.
    stride, spacing
        Of ``o`` and of ``k``.
    padding, dilation
        Of the operand, along each spatial axis.
    groups
        Groups of the batch axis.
    """

    axes: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    stride: tuple[int, ...]
    spacing: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def __call__(self, value: Array) -> Array:
        """Windows of ``value``; axes before the operand's own are kept."""
        lead = value.ndim - len(self.axes)
        value = value.transpose(*range(lead), *(lead + axis for axis in self.axes))
        b, rest = value.shape[lead], value.shape[lead + 1 :]
        value = value.reshape(*value.shape[:lead], self.groups, b // self.groups, *rest)
        first = lead + 3
        edges = [(0, 0, 0)] * first + [
            (low, high, step - 1)
            for (low, high), step in zip(self.padding, self.dilation, strict=True)
        ]
        if any(edge != (0, 0, 0) for edge in edges):
            value = jax.lax.pad(value, jnp.zeros((), value.dtype), edges)
        spatial = len(self.outer)
        for i in range(spatial):  # each turns one spatial axis into two: o here, k at the end
            value = self._windows(value, i, first + i)
        # (g, b, c, o..., k...) to (g, b, o..., c, k...)
        o = range(first, first + spatial)
        k = range(first + spatial, first + 2 * spatial)
        return value.transpose(*range(lead), lead, lead + 1, *o, lead + 2, *k)

    def _windows(self, value: Array, i: int, axis: int) -> Array:
        outer, inner, stride, spacing = (
            self.outer[i],
            self.inner[i],
            self.stride[i],
            self.spacing[i],
        )

        def entries(start: int, count: int, step: int) -> Array:
            stop = start + (count - 1) * step + 1
            return jax.lax.slice_in_dim(value, start, stop, step, axis)

        # Few long slices instead of many short ones.
        if outer <= inner:
            slices = [entries(o * stride, inner, spacing) for o in range(outer)]
            both = jnp.stack(slices, axis)
            return jnp.moveaxis(both, axis + 1, -1)
        return jnp.stack([entries(k * spacing, outer, stride) for k in range(inner)], -1)


@dataclass(frozen=True)
class Split:
    """One axis cut into groups; the group axis comes first."""

    axis: int
    groups: int
    ndim: int

    def __call__(self, value: Array) -> Array:
        """``value`` with the axis of its last ``ndim`` axes split."""
        axis = value.ndim - self.ndim + self.axis
        shape = (*value.shape[:axis], self.groups, -1, *value.shape[axis + 1 :])
        return jnp.moveaxis(value.reshape(shape), axis, value.ndim - self.ndim)


@dataclass(frozen=True, eq=False)
class Operand:
    """One factor of the last product behind a gradient.

    Attributes
    ----------
    variable
        Its value in the graph.
    shape
        Shape after preparation.
    batch, positions, free
        Axes of that shape: in the result and in both factors, summed over, and the factor's own.
    prepare
        What has to be done to the value first.
    summed
        Axes that are summed away beforehand.
    slices
        ``(axis, start, stop, step)`` of axes of which only a part is used.
    vocabulary
        Set for lookups: the value holds indices below it and stands for one-hot vectors.
    clip
        Whether indices out of bounds are moved inside (otherwise they count for nothing).
    varies
        Whether the value depends on the cotangent.
    """

    variable: Variable
    shape: tuple[int, ...]
    batch: tuple[int, ...]
    positions: tuple[int, ...]
    free: tuple[int, ...]
    prepare: Patches | Split | None = None
    summed: tuple[int, ...] = ()
    slices: tuple[tuple[int, int, int, int], ...] = ()
    vocabulary: int | None = None
    clip: bool = False
    varies: bool = field(default=True)

    @property
    def dims(self) -> tuple[int, int, int]:
        """``(B, T, d)``."""
        b, t, d = (
            product_size(self.shape, axes) for axes in (self.batch, self.positions, self.free)
        )
        return b, t, d if self.vocabulary is None else self.vocabulary

    @property
    def bytes(self) -> int:
        """Bytes of the prepared value (float32 or wider; indices as they are)."""
        b, t, d = self.dims
        width = max(int(getattr(self.variable.dtype, "itemsize", 4)), 4)
        return b * t * (1 if self.vocabulary is not None else d) * width

    def stacked(self, variable: Variable, *, positions: bool) -> Operand:
        """The values of all steps of a scan; the step joins the positions or the batch axes."""
        shift = lambda axes: tuple(axis + 1 for axis in axes)  # noqa: E731
        batch, own = shift(self.batch), shift(self.positions)
        return replace(
            self,
            variable=variable,
            shape=(variable.shape[0], *self.shape),
            batch=batch if positions else (0, *batch),
            positions=(0, *own) if positions else own,
            free=shift(self.free),
            summed=shift(self.summed),
            slices=tuple((axis + 1, a, b, step) for axis, a, b, step in self.slices),
        )

    def canonical(self, value: Array, lead: int) -> Array:
        """The prepared value as ``(lead..., B, T, d)``; indices ``(lead..., B, T)``."""
        if self.prepare is not None:
            value = self.prepare(value)
        for axis, start, stop, step in self.slices:
            value = jax.lax.slice_in_dim(value, start, stop, step, lead + axis)
        if self.summed:
            value = value.sum([lead + axis for axis in self.summed], keepdims=True)
        free = () if self.vocabulary is not None else self.free
        rest = [
            axis
            for axis in range(len(self.shape))
            if axis not in {*self.batch, *self.positions, *free}
        ]
        order = [lead + axis for axis in (*self.batch, *self.positions, *free, *rest)]
        value = value.transpose(*range(lead), *order)
        b, t, d = self.dims
        width = () if self.vocabulary is not None else (d,)
        return value.reshape(*value.shape[:lead], b, t, *width)


def masked_ids(operand: Operand, ids: Array) -> Array:
    """Indices inside the vocabulary, or -1 for those that count for nothing."""
    assert operand.vocabulary is not None
    ids = _signed(ids)
    if operand.clip:
        return jnp.clip(ids, 0, operand.vocabulary - 1)
    return jnp.where((ids >= 0) & (ids < operand.vocabulary), ids, -1)


def _signed(ids: Array) -> Array:
    """Indices in a type that holds -1 and the size of any vocabulary."""
    wide = jnp.int64 if ids.dtype.itemsize == 8 else jnp.int32
    if jnp.issubdtype(ids.dtype, jnp.unsignedinteger):
        # What has no place there is out of bounds of any table.
        most = min(jnp.iinfo(ids.dtype).max, jnp.iinfo(wide).max)
        ids = jnp.minimum(ids, jnp.asarray(most, ids.dtype))
    return ids.astype(wide)
