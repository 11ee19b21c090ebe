r"""The Jacobian, parameter array by parameter array, in coordinates that hold no more than needed.

M rows of a Jacobian span at most M directions of a parameter array. An orthogonal change of basis
of that array, ``J^T = Q R``, puts all of them into its first M coordinates: R (M x M) serves
instead of J (M x P), and every kernel stays what it is, since ``J J^T = R^T R``. R is built up
from pieces of the array, so that no more of J than the budget allows exists at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import torch
from torch import Tensor

from ntkstats.errors import BudgetError
from ntkstats.models._torch._network import Moving, Network
from ntkstats.models._torch._rows import Rows
from ntkstats.typing import PyTree

# Of the budget, a third each holds rows, their factorisation, and the backward pass.
SHARES = 3
MOST_ROWS = 1024


class Side(NamedTuple):
    """One set of inputs.

    Attributes
    ----------
    samples
        Tensors with one axis of samples in front.
    n, width
        Number of samples (1 if they interact) and of outputs of each.
    """

    samples: PyTree
    n: int
    width: int


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
    sizes = {name: value.numel() for name, value in network.weights.moving.items()}
    width = max(value.element_size() for value in network.weights.moving.values())
    outputs: list[Tensor] = []
    found: dict[str, list[Tensor]] = {name: [] for name in sizes}
    for group in passes(sizes, m, width, budget):
        moving = {p.name: network.weights.moving[p.name] for p in group}
        held = {
            p: torch.empty((m, p.stop - p.start), dtype=v.dtype, device=v.device)
            for p, v in zip(group, moving.values(), strict=True)
        }
        one = sum(sizes[name] for name in moving) * width + saved
        outputs = _fill(network, rows, sides, moving, held, budget // SHARES // one)
        for piece in group:
            block = held.pop(piece)
            if sizes[piece.name] > m:
                block = _triangle(found[piece.name], block)
            found[piece.name].append(block)
    jacobian = {
        name: (blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1))
        for name, blocks in found.items()
    }
    return outputs, jacobian


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


def chunks(n: int, width: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Ranges of samples and of outputs, at most ``most`` rows each."""
    most = max(1, min(most, MOST_ROWS))
    columns = min(width, most)
    step = max(1, most // columns)
    for first in range(0, n, step):
        for start in range(0, width, columns):
            yield first, min(n, first + step), start, min(width, start + columns)


def _triangle(above: list[Tensor], block: Tensor) -> Tensor:
    """R^T of the rows seen so far, where ``above`` holds that of the earlier pieces."""
    whole = torch.cat([*above, block], 1)
    above.clear()
    m = whole.shape[0]
    if whole.shape[1] <= m:
        return whole
    # Other devices than these have no factorisation.
    if whole.device.type not in ("cpu", "cuda"):
        whole = whole.cpu()
    return torch.linalg.qr(whole.T, mode="r").R.T
