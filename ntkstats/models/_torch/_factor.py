r"""The Jacobian, parameter array by parameter array, in coordinates that hold no more than needed.

M rows of a Jacobian span at most M directions of a parameter array. An orthogonal change of basis
of that array, ``J^T = Q R``, puts all of them into its first M coordinates: R (M x M) serves
instead of J (M x P), and every kernel stays what it is, since ``J J^T = R^T R``. R is built up
from pieces of the array, so that no more of J than the budget allows exists at any time. For the
weights of linear layers, where most parameters are, not even pieces are needed (`_linear`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import jax
import torch
from torch import Tensor, nn
from torch.func import vmap

from ntkstats.errors import BudgetError
from ntkstats.models._torch._linear import Product, candidates, gram, inputs_of, root
from ntkstats.models._torch._network import Moving, Network
from ntkstats.models._torch._rows import Rows, together
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
    products = _products(network, rows, sides, m, budget)
    weights = network.weights.moving
    taps = {n: product.taps(n, weights[n]) for n, product in products.items()}
    moving = {n: value for n, value in weights.items() if n not in products}
    moving |= {n: zero for group in taps.values() for n, zero in group.items()}
    sizes = {name: value.numel() for name, value in moving.items()}
    width = max(value.element_size() for value in moving.values())
    tapped = network._replace(layers={n: product.layer for n, product in products.items()})
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
        most = budget // SHARES
        inputs = _inputs(network, products, sides, most // max(1, saved))
        of = torch.cat(_samples_of(sides)).to(network.device)
        for name, product in products.items():
            out = product.layer.out_features
            g = torch.cat([jacobian.pop(n).reshape(m, -1, out) for n in taps[name]], 1)
            parts = (_solvable(part) for part in (inputs[name], g, of))
            jacobian[name] = root(gram(*parts, most)).to(g.dtype)
    return outputs, {name: jacobian[name] for name in weights}


def _products(
    network: Network, rows: Rows, sides: Sequence[Side], m: int, budget: int
) -> dict[str, Product]:
    """Layers whose weights need no rows of their own, ``{name of the weight: layer}``.

    Looked for at every moment: which layers a module calls may depend on its numbers.
    """
    found = candidates(network.module, network.weights)
    moving = network.weights.moving
    # Float64 is asked for where digits count, and a Gram matrix has half of them.
    single = all(value.dtype == torch.float32 for value in moving.values())
    if rows is not together or not found or not single:
        return {}
    calls = [_calls(network, found, side) for side in sides]
    products = {name: Product(found[name], calls[0][name]) for name in calls[0]}
    products = {
        name: product
        for name, product in products.items()
        if all(other.get(name) == product.calls for other in calls) and product.pays(m)
    }
    wide = max((product.positions for product in products.values()), default=0)
    columns = sum(p.positions * p.layer.out_features for p in products.values())
    needs = max(4 * m * columns, 8 * m * max(m, wide**2), 8 * m * wide * max(side.width for side in sides))
    return products if needs <= budget // SHARES else {}


def _calls(
    network: Network, layers: Mapping[str, nn.Linear], side: Side
) -> dict[str, tuple[torch.Size, ...]]:
    """What the layers are given on one sample; those are left out whose weight has other uses."""
    weights = {name: network.weights.moving[name].detach().requires_grad_() for name in layers}
    sample = jax.tree.map(lambda leaf: leaf[0], side.samples)
    with inputs_of(layers) as seen:
        out = network.flat(weights, sample)
    if out.requires_grad:
        used = torch.autograd.grad(out.sum(), list(weights.values()), allow_unused=True)
    else:
        used = (None,) * len(weights)
    return {
        name: tuple(x.shape for x in seen[name])
        for name, gradient in zip(weights, used, strict=True)
        if gradient is None and seen[name] and all(x.numel() for x in seen[name])
    }


def _inputs(
    network: Network, products: Mapping[str, Product], sides: Sequence[Side], most: int
) -> dict[str, Tensor]:
    """``(samples of all sides, positions, in)`` for each layer."""
    layers = {name: product.layer for name, product in products.items()}

    def of_one(sample: PyTree) -> dict[str, Tensor]:
        with inputs_of(layers) as seen:
            network.flat({}, sample)
        return {
            name: torch.cat([x.reshape(-1, layer.in_features) for x in seen[name]])
            for name, layer in layers.items()
        }

    parts: list[dict[str, Tensor]] = []
    for side in sides:
        for first, last, *_ in chunks(side.n, 1, most):
            chunk = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], side.samples)
            with torch.no_grad():
                parts.append(vmap(of_one)(chunk))
    return {name: torch.cat([part[name] for part in parts]) for name in layers}


def _samples_of(sides: Sequence[Side]) -> list[Tensor]:
    """Of which sample each row is, counted through all sides."""
    starts = accumulate((side.n for side in sides), initial=0)
    return [
        torch.arange(start, start + side.n).repeat_interleave(side.width)
        for start, side in zip(starts, sides, strict=False)
    ]


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
    return torch.linalg.qr(_solvable(whole).T, mode="r").R.T


def _solvable(tensor: Tensor) -> Tensor:
    """The tensor where there are factorisations and float64."""
    return tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()
