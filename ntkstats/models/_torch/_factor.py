r"""The Jacobian, parameter array by parameter array, in coordinates that hold no more than needed.

M rows of a Jacobian span at most M directions of a parameter array. An orthogonal change of basis
of that array, ``J^T = Q R``, puts all of them into its first M coordinates: R (M x M) serves
instead of J (M x P), and every kernel stays what it is, since ``J J^T = R^T R``. R is built up
from pieces of the array, so that no more of J than the budget allows exists at any time. For the
weights of linear layers, where most parameters are, not even pieces are needed (`_products`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import torch
from torch import Tensor

from ntkstats.errors import BudgetError
from ntkstats.models._torch._network import Moving, Network
from ntkstats.models._torch._products import products_of, roots, solvable
from ntkstats.models._torch._rows import Rows
from ntkstats.models._torch._sides import Side, chunks

# Of the budget, a third each holds rows, their factorisation, and the backward pass.
SHARES = 3


class Piece(NamedTuple):
    """Entries ``start`` to ``stop`` of a flattened parameter array."""

    name: str
    start: int
    stop: int


def factors(
    network: Network, rows: Rows, sides: Sequence[Side], budget: int, saved: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs, and the Jacobian in few coordinates.

    Parameters
    ----------
    network, rows
        What is differentiated, and how.
    sides
        The inputs; their rows follow each other.
    budget
        Bytes that rows, their factorisation and backward passes may take.
    saved
        Bytes that one sample leaves behind for its backward pass.

    Returns
    -------
    outputs
        ``(n, C)`` for each side.
    jacobian
        ``{name: (M, min(P, M))}`` for all M rows.

    Raises
    ------
    BudgetError
    """
    m = sum(side.n * side.width for side in sides)
    products = products_of(network, rows, sides, m, budget // SHARES)
    weights = network.weights.moving
    taps = {n: product.taps(n, weights[n]) for n, product in products.items()}
    zeros = {n: zero for group in taps.values() for n, zero in group.items()}
    moving = {n: value for n, value in weights.items() if n not in products} | zeros
    sizes = {name: value.numel() for name, value in moving.items()}
    width = max(value.element_size() for value in moving.values())
    tapped = network._replace(
        layers={n: product.layer for n, product in products.items()},
        weights=network.weights._replace(still=network.weights.still | zeros),
    )
    outputs: list[Tensor] = []
    found: dict[str, list[Tensor]] = {name: [] for name in sizes}
    for group in passes(sizes, m, width, budget):
        some = {p.name: moving[p.name] for p in group}
        held = {
            p: torch.empty((m, p.stop - p.start), dtype=v.dtype, device=v.device)
            for p, v in zip(group, some.values(), strict=True)
        }
        one = sum(sizes[name] for name in some) * width + saved
        outputs = _fill(tapped, rows, sides, some, held, budget // SHARES // one)
        for piece in group:
            block = held.pop(piece)
            if sizes[piece.name] > m and piece.name in weights:
                block = _triangle(found[piece.name], block)
            found[piece.name].append(block)
    jacobian = {
        name: (blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1))
        for name, blocks in found.items()
    }
    if products:
        derivatives = {
            name: torch.cat(
                [jacobian.pop(n).reshape(m, -1, product.layer.out_features) for n in taps[name]], 1
            )
            for name, product in products.items()
        }
        jacobian |= roots(network, products, sides, derivatives, budget // SHARES, saved)
    return outputs, {name: jacobian[name] for name in weights}


def passes(sizes: Mapping[str, int], m: int, width: int, budget: int) -> list[list[Piece]]:
    """Pieces of parameter arrays that are pulled back together, so that their rows fit.

    Parameters
    ----------
    sizes
        Number of parameters in each array.
    m
        Number of rows.
    width
        Bytes a number.
    budget
        Bytes for everything.

    Raises
    ------
    BudgetError
        The result, or a single row of the largest array, does not fit.

    Examples
    --------
    >>> passes({"a": 4, "b": 20}, m=2, width=4, budget=360)
    [[Piece(name='a', start=0, stop=4)], [Piece(name='b', start=0, stop=15)],
     [Piece(name='b', start=15, stop=20)]]
    """
    result = width * sum(m * min(m, size) for size in sizes.values())
    share = budget // SHARES
    largest = max(sizes, key=lambda name: sizes[name])
    capacity = share // (m * width)
    if result > share or capacity < 1 or sizes[largest] * width > share:
        need = SHARES * max(result, m * width, sizes[largest] * width)
        msg = (
            f"budget_bytes={budget:,} was given for the Jacobian of {m} rows (samples times "
            f"outputs) in {sum(sizes.values()):,} parameters; expected at least {need:,}. Use "
            "fewer samples, a head with fewer outputs (heads=), some of the parameters "
            "(params_filter=), or a larger budget_bytes."
        )
        raise BudgetError(msg)
    groups: list[list[Piece]] = []
    columns = entries = 0
    for name, size in sizes.items():
        for start in range(0, size, capacity):
            piece = Piece(name, start, min(size, start + capacity))
            columns += piece.stop - piece.start
            entries += size
            # The backward pass gives whole arrays, of which a piece is kept.
            if not groups or columns > capacity or entries * width > share:
                groups.append([])
                columns, entries = piece.stop - piece.start, size
            groups[-1].append(piece)
    return groups


def _fill(
    network: Network,
    rows: Rows,
    sides: Sequence[Side],
    moving: Moving,
    held: Mapping[Piece, Tensor],
    most: int,
) -> list[Tensor]:
    """Compute rows a chunk at a time and keep the pieces; gives the outputs of each side."""
    outputs, offset = [], 0
    for side in sides:
        parts = []
        for first, last, start, stop in chunks(side.n, side.width, most):
            chunk = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], side.samples)
            out, gradients = rows(network, moving, chunk, start, stop)
            if start == 0:
                parts.append(out.detach())
            for piece, block in held.items():
                whole = gradients[piece.name].detach().reshape(last - first, stop - start, -1)
                target = block[offset : offset + side.n * side.width]
                target = target.reshape(side.n, side.width, -1)
                target[first:last, start:stop] = whole[..., piece.start : piece.stop]
        outputs.append(torch.cat(parts))
        offset += side.n * side.width
    return outputs


def _triangle(above: list[Tensor], block: Tensor) -> Tensor:
    """R^T of the rows seen so far, where ``above`` holds that of the earlier pieces."""
    whole = torch.cat([*above, block], 1)
    above.clear()
    m = whole.shape[0]
    if whole.shape[1] <= m:
        return whole
    return torch.linalg.qr(solvable(whole).T, mode="r").R.T
