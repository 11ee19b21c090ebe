"""For every parameter array: written out or kept as factors? By the cost of either."""

from __future__ import annotations

import math
from typing import NamedTuple

from ntkstats._compat import Literal, Variable
from ntkstats.kernels._types import Task
from ntkstats.kernels.structured._cut import Leaf
from ntkstats.kernels.structured._structure import Structure

# What a factored block costs besides its products, in multiply-adds an entry: it is written and
# read again instead of being added up inside one product.
ENTRY = 16
# Sums over positions run as many small products, at a part of the speed of one large one.
SMALL_PRODUCTS = 2.0


class Choice(NamedTuple):
    """How one parameter array takes part in a contraction.

    Attributes
    ----------
    leaf
        Its position.
    how
        ``"factors"``, ``"rows"`` (formed from the operands), ``"gradient"`` (rows as the pullback
        returns them), ``"bias"`` (goes along with another array's factors) or ``"zero"``.
    bias
        Position of the bias that goes along; None without.
    batch, positions, left, right
        B, T and the widths of the operands (0 where there are none).
    flops
        Of the contraction (and forming of rows) of all samples with each other.
    row_bytes, sample_bytes
        Bytes of its factors a row, and a sample besides (float32).
    by_pieces
        Rows are written out a piece at a time.
    """

    leaf: int
    how: str
    bias: int | None = None
    batch: int = 1
    positions: int = 1
    left: int = 0
    right: int = 0
    flops: float = 0.0
    row_bytes: int = 0
    sample_bytes: int = 0
    by_pieces: bool = False


def choices(
    structure: Structure, task: Task, *, pairs: bool = True, columns: int | None = None
) -> tuple[Choice, ...]:
    """The cheapest way for every array.

    Parameters
    ----------
    structure
        The cut pullback.
    task
        What is computed.
    pairs
        False for a diagonal.
    columns
        Number of samples on the other side of a cross kernel, which has to choose the same.
    """
    if columns is not None:
        task = task._replace(n_samples=max(task.n_samples, columns))
    found = [_choice(k, leaf, task, pairs) for k, leaf in enumerate(structure.leaves)]
    return tuple(_with_biases(structure, found))


def _choice(k: int, leaf: Leaf, task: Task, pairs: bool) -> Choice:
    size = math.prod(leaf.shape)
    if leaf.rule == "zero" or isinstance(leaf.gradient, Literal):
        return Choice(k, "zero")
    n, r = task.n_samples, task.n_rows
    meetings = {"all": n * r * n * r, "sum": n * n * r, "each": n * n * r}[task.pairing]
    if not pairs:
        meetings = n * r
    contraction = float(meetings * size)
    written = Choice(k, "gradient", flops=contraction, row_bytes=4 * size)
    if not leaf.products and not leaf.lookups:
        return written
    terms = leaf.products + leaf.lookups
    positions = sum(term.right.dims[1] for term in terms)
    batch, _, left = terms[0].left.dims
    right = terms[0].right.dims[2]
    if left == 1 or right == 1:
        # The gradient is a sum over positions already; there is nothing to gain from its factors.
        return written if positions > 1 else written._replace(flops=contraction)
    dims = {"batch": batch, "positions": positions, "left": left, "right": right}
    operands = [operand for term in terms for operand in (term.left, term.right)]
    row_bytes = sum(operand.bytes for operand in operands if operand.varies)
    sample_bytes = sum(operand.bytes for operand in operands if not operand.varies)
    forming = 2.0 * n * r * batch * positions * left * right if positions > 1 else n * r * size
    rows = Choice(k, "rows", None, batch, positions, left, right, contraction + forming)
    rows = rows._replace(row_bytes=row_bytes + 4 * size, sample_bytes=sample_bytes)
    one_side_varies = len({term.varies for term in terms}) == 1 and sum(terms[0].varies) <= 1
    mixed = bool(leaf.products) and bool(leaf.lookups)
    shorter = row_bytes < 4 * size
    if one_side_varies and not leaf.lookups and batch * positions > 1 and shorter:
        rows = rows._replace(by_pieces=True, row_bytes=row_bytes)
    if mixed or not one_side_varies:
        return rows
    flops = _factored(task, pairs, **dims)
    factors = rows._replace(how="factors", flops=flops, row_bytes=row_bytes, by_pieces=False)
    return factors if factors.flops < rows.flops else rows


def _factored(
    task: Task, pairs: bool, *, batch: int, positions: int, left: int, right: int
) -> float:
    """Operations of a contraction that writes no rows."""
    n, r, t = task.n_samples, task.n_rows, positions
    if not pairs:
        return 2.0 * n * batch * t * t * (left + r * right)
    entries = n * n * (r * r if task.pairing == "all" else r)
    if batch * t == 1:
        return float(n * n * left + entries * right + ENTRY * entries)
    if task.pairing == "all":
        work = t * t * left + t * t * r * right + t * r * r * right
    else:
        work = t * t * (left + r * right)
    return SMALL_PRODUCTS * 2.0 * n * n * batch * work + ENTRY * entries


def _with_biases(structure: Structure, found: list[Choice]) -> list[Choice]:
    """Let a bias whose gradient is an operand of the product before it go along with that."""
    products = {
        structure.leaves[c.leaf].products[0].right.variable: c.leaf
        for c in found
        if c.how == "factors"
        and c.batch * c.positions == 1
        and structure.leaves[c.leaf].products
        and structure.leaves[c.leaf].products[0].right.varies
        and not structure.leaves[c.leaf].products[0].scale
    }
    result = list(found)
    for choice in found:
        if choice.how != "gradient":
            continue
        leaf = structure.leaves[choice.leaf]
        source = _summed(structure, leaf.gradient)
        owner = products.pop(source, None) if source is not None else None
        if owner is not None and found[owner].right == math.prod(leaf.shape):
            result[owner] = result[owner]._replace(bias=choice.leaf)
            result[choice.leaf] = Choice(choice.leaf, "bias")
    return result


def _summed(structure: Structure, gradient: Variable | Literal) -> Variable | None:
    """What a gradient is, behind steps that neither add up nor reorder its entries."""
    producers = structure.graph.producers
    while isinstance(gradient, Variable) and gradient in producers:
        eqn, _ = producers[gradient]
        source = eqn.inputs[0]
        moves = eqn.name in ("reduce_sum", "reshape", "squeeze", "convert_element_type", "copy")
        if not moves or not isinstance(source, Variable) or source.size != gradient.size:
            break
        gradient = source
    return gradient if isinstance(gradient, Variable) else None
