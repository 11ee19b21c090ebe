"""Where the axes of a product's operands end up in the array that is made of it.

A gradient leaves the last product through transposes, reshapes and sums. Following its axes
through those tells whether two products that are added have the same layout, so that their
operands may be laid end to end instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """A part of an axis of an operand.

    Attributes
    ----------
    side
        ``"L"`` or ``"R"`` for a free axis of the left or right operand, ``"B"`` for a batch axis.
    axis
        Which of the free (or batch) axes.
    size
        Entries of the part.
    stride
        Entries of the axis between two neighbours of the part.
    """

    side: str
    axis: int
    size: int
    stride: int = 1


Layout = list[list[Piece]]
"""For each axis of an array the pieces it is made of, outermost first."""


class Pattern(NamedTuple):
    """Order of the operands' axes in the flattened result.

    Attributes
    ----------
    runs
        ``(side, size)`` of neighbouring axes of one operand.
    left, right, batch
        Order in which the axes of each kind appear.
    """

    runs: tuple[tuple[str, int], ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    batch: tuple[int, ...]


def transposed(layout: Layout, permutation: Sequence[int]) -> Layout:
    """Layout after a transpose."""
    return [layout[axis] for axis in permutation]


def reshaped(layout: Layout, shape: Sequence[int]) -> Layout | None:
    """Layout after a reshape; None when an axis is cut where it cannot be."""
    pieces = [piece for axis in layout for piece in axis if piece.size > 1]
    result: Layout = []
    for size in shape:
        axis: list[Piece] = []
        missing = size
        while missing > 1:
            if not pieces:
                return None
            piece = pieces.pop(0)
            if missing % piece.size == 0:
                axis.append(piece)
                missing //= piece.size
            elif piece.size % missing == 0:
                inner = piece.size // missing
                axis.append(piece._replace(size=missing, stride=piece.stride * inner))
                pieces.insert(0, piece._replace(size=inner))
                missing = 1
            else:
                return None
        result.append(axis)
    return None if pieces else result


def pattern(layout: Layout, sizes: dict[tuple[str, int], int]) -> Pattern | None:
    """Order of whole axes; None when an axis was cut and its parts are no longer neighbours.

    ``sizes`` has the entries of each axis of each side.
    """
    merged: list[Piece] = []
    for piece in (piece for axis in layout for piece in axis if piece.size > 1):
        last = merged[-1] if merged else None
        joins = (
            last is not None and last[:2] == piece[:2] and last.stride == piece.stride * piece.size
        )
        if last is not None and joins:
            merged[-1] = piece._replace(size=last.size * piece.size)
        else:
            merged.append(piece)
    if any(piece.stride != 1 or piece.size != sizes[piece[:2]] for piece in merged):
        return None
    # Axes with one entry may stand anywhere.
    for (side, axis), size in sizes.items():
        if size == 1:
            merged.append(Piece(side, axis, 1))
    order = {s: tuple(piece.axis for piece in merged if piece.side == s) for s in "LRB"}
    return Pattern(runs(merged), order["L"], order["R"], order["B"])


def runs(pieces: Iterable[Piece]) -> tuple[tuple[str, int], ...]:
    """Sides in order with the entries of neighbours of one side together."""
    found: list[tuple[str, int]] = []
    for piece in pieces:
        if piece.size == 1:
            continue
        if found and found[-1][0] == piece.side:
            found[-1] = (piece.side, found[-1][1] * piece.size)
        else:
            found.append((piece.side, piece.size))
    return tuple(found)


def swapped(order: Pattern) -> Pattern:
    """The same pattern with left and right exchanged."""
    exchange = {"L": "R", "R": "L", "B": "B"}
    sides = tuple((exchange[side], size) for side, size in order.runs)
    return Pattern(sides, order.right, order.left, order.batch)


def starts_right(order: Pattern) -> bool:
    """Whether an axis of the right operand comes first among free ones."""
    free = [side for side, _ in order.runs if side != "B"]
    return bool(free) and free[0] == "R"


def product_size(shape: Sequence[int], axes: Iterable[int]) -> int:
    """Entries of some axes together."""
    return math.prod(shape[axis] for axis in axes)
