"""Tiles of Jacobian rows, written out or as factors.

A tile has n samples with r rows each. The part of one parameter array in it is either written out
(`Rows`), or kept as the operands of the product it would be: with
``J = sum_t right_t left_t^T`` the inner product of two rows is
``sum_{t,u} (left_t . left_u) (right_t . right_u)``, which needs no row at all (`Outer`); or rows
are written out a piece at a time, when they are contracted (`Formed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ntkstats.typing import Array


class Rows(NamedTuple):
    """Rows written out.

    Attributes
    ----------
    leaf
        Position of the parameter array.
    value
        ``(n, r, *shape)``.
    """

    leaf: int
    value: Array


class Outer(NamedTuple):
    """Rows as sums of outer products.

    Attributes
    ----------
    leaf
        Position of the parameter array.
    bias
        Position of a bias that is added to the product, whose rows are ``right`` itself; None
        without. Only where T = B = 1.
    left
        ``(n, B, T, d)``, the same for all rows of a sample; or ``(n, B, T)`` indices of one-hot
        vectors (negative ones count for nothing).
    right
        ``(n, r, B, T, e)``.
    """

    leaf: int
    bias: int | None
    left: Array
    right: Array

    @property
    def simple(self) -> bool:
        """Whether there is nothing to sum over: B = T = 1."""
        return self.right.shape[2] * self.right.shape[3] == 1


class Formed(NamedTuple):
    """Sums of outer products that are written out a piece at a time, when they are contracted.

    Attributes
    ----------
    leaf
        Position of the parameter array.
    left
        As of `Outer`, indices excepted.
    right
        ``(n, r, B, e, T)``: positions last, where products want them.
    piece
        Bytes that a piece of the rows may take.
    """

    leaf: int
    left: Array
    right: Array
    piece: int


Factor: TypeAlias = Rows | Outer | Formed
Tile: TypeAlias = Sequence[Factor]
