"""The products that end a gradient, with the axes of their operands named.

What a matrix product, a convolution or a lookup multiplies is found from the operation alone; the
steps that follow it are then applied to the layout of its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ntkstats._compat import Equation, Literal, Variable
from ntkstats.kernels.structured._layout import (
    Layout,
    Pattern,
    Piece,
    pattern,
    reshaped,
    starts_right,
    swapped,
    transposed,
)
from ntkstats.kernels.structured._operands import Operand, Patches, Split

Atom = Variable | Literal


@dataclass(frozen=True, eq=False)
class Product:
    """One product: sum over positions of left times right.

    Attributes
    ----------
    left, right
        Operands.
    scale
        Numbers that multiply it.
    order
        Where its axes are in the gradient; None if that could not be followed.
    rule
        ``"product"``, ``"convolution"`` or ``"lookup"``.
    """

    left: Operand
    right: Operand
    scale: tuple[Atom, ...]
    order: Pattern | None
    rule: str

    @property
    def varies(self) -> tuple[bool, bool]:
        """Whether the operands depend on the cotangent."""
        return self.left.varies, self.right.varies


class Step(NamedTuple):
    """Something between a product and the gradient: moving entries, summing or scaling them."""

    name: str
    value: Any


class NotAProductError(Exception):
    """A product whose axes cannot be followed to the gradient."""


def aligned(term: Product) -> Product:
    """The product with its axes in the order in which the gradient has them."""
    if term.order is None:
        return term
    order, left, right = term.order, term.left, term.right
    if term.rule != "lookup" and starts_right(order):
        order, left, right = swapped(order), right, left

    def ordered(operand: Operand, free: tuple[int, ...]) -> Operand:
        if operand.vocabulary is not None:
            return operand
        return replace(
            operand,
            batch=tuple(operand.batch[i] for i in order.batch),
            free=tuple(operand.free[i] for i in free),
        )

    return replace(
        term, left=ordered(left, order.left), right=ordered(right, order.right), order=order
    )


def matrix_product(eqn: Equation, steps: Sequence[Step]) -> Product:
    left, right = (_known(atom) for atom in eqn.inputs)
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]

    def free(v: Variable, *used: Sequence[int]) -> tuple[int, ...]:
        return tuple(a for a in range(len(v.shape)) if not any(a in axes for axes in used))

    ours, theirs = free(left, left_sum, left_batch), free(right, right_sum, right_batch)
    layout: Layout = [
        *([Piece("B", i, left.shape[axis])] for i, axis in enumerate(left_batch)),
        *([Piece("L", i, left.shape[axis])] for i, axis in enumerate(ours)),
        *([Piece("R", i, right.shape[axis])] for i, axis in enumerate(theirs)),
    ]
    a = Operand(left, left.shape, tuple(left_batch), tuple(left_sum), ours)
    b = Operand(right, right.shape, tuple(right_batch), tuple(right_sum), theirs)
    return _finished(a, b, layout, steps, "product")


def convolution(eqn: Equation, steps: Sequence[Step]) -> Product:
    """A convolution whose result is a kernel: windows of the left operand times the right one."""
    params = eqn.params
    lhs, rhs = (_known(atom) for atom in eqn.inputs)
    numbers, groups = params["dimension_numbers"], int(params["batch_group_count"])
    if params["feature_group_count"] != 1:
        raise NotAProductError
    result = eqn.outputs[0].shape
    spatial = len(numbers.lhs_spec) - 2
    outer = tuple(result[axis] for axis in numbers.out_spec[2:])
    inner = tuple(rhs.shape[axis] for axis in numbers.rhs_spec[2:])
    patches = Patches(
        tuple(numbers.lhs_spec),
        outer,
        inner,
        tuple(params["window_strides"]),
        tuple(params["rhs_dilation"]),
        tuple(map(tuple, params["padding"])),
        tuple(params["lhs_dilation"]),
        groups,
    )
    b, c = (lhs.shape[axis] for axis in numbers.lhs_spec[:2])
    f = rhs.shape[numbers.rhs_spec[0]]
    # Windows: (g, b, o..., c, k...).
    windows = (groups, b // groups, *outer, c, *inner)
    free = tuple(range(1, 2 + spatial))
    left = Operand(lhs, windows, (0,), tuple(range(2 + spatial, 3 + 2 * spatial)), free, patches)
    split = Split(numbers.rhs_spec[0], groups, len(rhs.shape))
    rest = [axis for axis in range(len(rhs.shape)) if axis != numbers.rhs_spec[0]]
    # The group axis comes first, so that every axis of the operand moves by one.
    moved = {axis: axis + 1 for axis in range(len(rhs.shape))}
    shape = [groups, *rhs.shape]
    shape[moved[numbers.rhs_spec[0]]] = f // groups
    positions = tuple(moved[axis] for axis in numbers.rhs_spec[1:])
    assert set(numbers.rhs_spec[1:]) == set(rest)
    right = Operand(rhs, tuple(shape), (0,), positions, (moved[numbers.rhs_spec[0]],), split)
    layout: Layout = [[] for _ in result]
    layout[numbers.out_spec[0]] = [Piece("L", 0, b // groups)]
    layout[numbers.out_spec[1]] = [Piece("B", 0, groups), Piece("R", 0, f // groups)]
    for i, axis in enumerate(numbers.out_spec[2:]):
        layout[axis] = [Piece("L", 1 + i, outer[i])]
    return _finished(left, right, layout, steps, "convolution")


def lookup(eqn: Equation, steps: Sequence[Step]) -> Product:
    """Rows added where indices say: one-hot vectors times those rows."""
    table, ids, rows = eqn.inputs[0], *map(_known, eqn.inputs[1:])
    numbers = eqn.params["dimension_numbers"]
    scattered = tuple(numbers.scatter_dims_to_operand_dims)
    window = tuple(numbers.update_window_dims)
    shape = table.shape
    whole = len(scattered) == 1 and tuple(numbers.inserted_window_dims) == scattered
    if not whole or bool(getattr(numbers, "operand_batching_dims", None)) or ids.shape[-1] != 1:
        raise NotAProductError
    others = tuple(axis for axis in range(len(shape)) if axis != scattered[0])
    if tuple(rows.shape[axis] for axis in window) != tuple(shape[axis] for axis in others):
        raise NotAProductError
    positions = tuple(axis for axis in range(len(rows.shape)) if axis not in window)
    left = Operand(
        ids,
        ids.shape,
        (),
        tuple(range(len(ids.shape) - 1)),
        (),
        vocabulary=shape[scattered[0]],
        clip="CLIP" in str(eqn.params["mode"]).upper(),
    )
    right = Operand(rows, rows.shape, (), positions, window)
    layout: Layout = [[] for _ in shape]
    layout[scattered[0]] = [Piece("L", 0, shape[scattered[0]])]
    for i, axis in enumerate(others):
        layout[axis] = [Piece("R", i, shape[axis])]
    return _finished(left, right, layout, steps, "lookup")


def _known(atom: Atom) -> Variable:
    if isinstance(atom, Literal):
        raise NotAProductError
    return atom


def _finished(
    left: Operand, right: Operand, layout: Layout, steps: Sequence[Step], rule: str
) -> Product:
    """The product after the steps that lead from it to the gradient."""
    scale: list[Atom] = []
    followed: Layout | None = layout
    for name, value in steps:
        if name == "scale":
            scale.append(value)
        elif name == "transpose" and followed is not None:
            followed = transposed(followed, value)
        elif name == "reshape" and followed is not None:
            followed = reshaped(followed, value)
        elif name == "sum":
            if followed is None:
                raise NotAProductError
            left, right, followed = _summed(left, right, followed, value)
        elif name == "slice":
            if followed is None:
                raise NotAProductError
            left, right, followed = _sliced(left, right, followed, value)
        elif name == "stack":
            left, right = (
                o.stacked(value.emit(o.variable), positions=False) for o in (left, right)
            )
            followed = None if followed is None else _behind_steps(followed, value.length)
        elif name == "accumulate":
            eqn = value[0]
            left, right = (o.stacked(eqn.emit(o.variable), positions=True) for o in (left, right))
    sizes = {("B", i): left.shape[axis] for i, axis in enumerate(left.batch)}
    sizes |= {("L", i): left.shape[axis] for i, axis in enumerate(left.free)}
    sizes |= {("R", i): right.shape[axis] for i, axis in enumerate(right.free)}
    if left.vocabulary is not None:
        sizes[("L", 0)] = left.vocabulary
    order = None if followed is None else pattern(followed, sizes)
    return Product(left, right, tuple(scale), order, rule)


def _behind_steps(layout: Layout, length: int) -> Layout:
    """Layout of the results of all steps of a scan: one more axis in front."""
    moved = [[p._replace(axis=p.axis + 1) if p.side == "B" else p for p in axis] for axis in layout]
    return [[Piece("B", 0, length)], *moved]


def _summed(
    left: Operand, right: Operand, layout: Layout, axes: Sequence[int]
) -> tuple[Operand, Operand, Layout]:
    """Operands of the product summed over axes of its result."""
    joined: set[int] = set()
    for piece in (piece for axis in axes for piece in layout[axis] if piece.size > 1):
        if piece.side == "L":
            left = _presummed(left, piece)
        elif piece.side == "R":
            right = _presummed(right, piece)
        elif left.shape[left.batch[piece.axis]] == piece.size:
            joined.add(piece.axis)
        else:
            raise NotAProductError
    kept = [i for i in range(len(left.batch)) if i not in joined]

    def moved(operand: Operand) -> Operand:
        positions = (*(operand.batch[i] for i in sorted(joined)), *operand.positions)
        return replace(operand, batch=tuple(operand.batch[i] for i in kept), positions=positions)

    rest = [axis for i, axis in enumerate(layout) if i not in axes]
    number = {old: new for new, old in enumerate(kept)}
    renamed = [
        [p._replace(axis=number[p.axis]) if p.side == "B" else p for p in axis] for axis in rest
    ]
    return moved(left), moved(right), renamed


def _presummed(operand: Operand, piece: Piece) -> Operand:
    """The operand summed over a free axis, which stays as an axis of one entry."""
    axis = operand.free[piece.axis] if operand.free else -1
    if operand.vocabulary is not None or operand.shape[axis] != piece.size:
        raise NotAProductError
    shape = tuple(1 if i == axis else size for i, size in enumerate(operand.shape))
    return replace(operand, shape=shape, summed=(*operand.summed, axis))


def _sliced(
    left: Operand, right: Operand, layout: Layout, parts: Sequence[tuple[int, int, int]]
) -> tuple[Operand, Operand, Layout]:
    """Operands of a part of the result: ``(start, stop, step)`` along each axis."""
    result = [list(axis) for axis in layout]
    for position, (start, stop, step) in enumerate(parts):
        size = math.prod(piece.size for piece in layout[position])
        if (start, stop, step) == (0, size, 1):
            continue
        pieces = [piece for piece in layout[position] if piece.size > 1]
        if len(pieces) != 1 or pieces[0].stride != 1:
            raise NotAProductError
        piece = pieces[0]
        entries = len(range(start, stop, step))
        sides = "LR" if piece.side == "B" else piece.side
        for side in sides:
            operand = left if side == "L" else right
            axes = operand.batch if piece.side == "B" else operand.free
            axis = axes[piece.axis] if axes else -1
            if axis < 0 or operand.vocabulary is not None or operand.shape[axis] != size:
                raise NotAProductError
            shape = tuple(entries if i == axis else n for i, n in enumerate(operand.shape))
            slices = (*operand.slices, (axis, start, stop, step))
            operand = replace(operand, shape=shape, slices=slices)
            left, right = (operand, right) if side == "L" else (left, operand)
        result[position] = [piece._replace(size=entries)]
    return left, right, result


PRODUCTS = {"dot_general": matrix_product, "conv_general_dilated": convolution}
