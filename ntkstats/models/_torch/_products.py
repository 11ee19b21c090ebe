r"""Weights of linear layers: kernels from inputs and derivatives, without rows of the Jacobian.

With inputs :math:`a_{nt}` of a layer (sample n, position t) and derivatives :math:`g_{nct}` of
output c in what the layer gives, the row of the Jacobian is :math:`\sum_t g_{nct} a_{nt}^T`, and
the product of two rows is :math:`\sum_{ts} (a_{nt} \cdot a_{ms}) (g_{nct} \cdot g_{mds})`
(Novak, Sohl-Dickstein, Schoenholz, 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import jax
import torch
from torch import Tensor, nn
from torch.func import vmap

from ntkstats.models._torch._linear import Product, candidates, inputs_of
from ntkstats.models._torch._network import Network
from ntkstats.models._torch._rows import Rows, together
from ntkstats.models._torch._sides import Side, chunks
from ntkstats.typing import PyTree


def products_of(
    network: Network, rows: Rows, sides: Sequence[Side], m: int, share: int
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
    positions = max((product.positions for product in products.values()), default=0)
    columns = sum(p.positions * p.layer.out_features for p in products.values())
    samples = sum(side.n for side in sides)
    numbers = (m * columns, 3 * m**2, (samples * positions) ** 2, 2 * m * positions**2)
    return products if 8 * max(numbers) <= share else {}


def _calls(
    network: Network, layers: Mapping[str, nn.Linear], side: Side
) -> dict[str, tuple[torch.Size, ...]]:
    """What the layers are given on one sample; those are left out whose weight has other uses."""
    weights = {name: network.weights.moving[name].detach().requires_grad_() for name in layers}
    sample = jax.tree.map(lambda leaf: leaf[0], side.samples)
    with inputs_of(layers) as seen:
        out = network.flat(weights, sample)
    used: tuple[Tensor | None, ...] = (None,) * len(weights)
    if out.requires_grad:
        used = torch.autograd.grad(out.sum(), list(weights.values()), allow_unused=True)
    return {
        name: tuple(x.shape for x in seen[name])
        for name, gradient in zip(weights, used, strict=True)
        if gradient is None and seen[name] and all(x.numel() for x in seen[name])
    }


def roots(
    network: Network,
    products: Mapping[str, Product],
    sides: Sequence[Side],
    derivatives: Mapping[str, Tensor],
    share: int,
    saved: int,
) -> dict[str, Tensor]:
    """``{name of the weight: (M, M)}`` whose rows have the products of the Jacobian's.

    Parameters
    ----------
    network, products, sides
        From `products_of`.
    derivatives
        ``{name: (M, positions, out)}`` in what the layers give.
    share
        Bytes for what is in between.
    saved
        Bytes that one sample leaves behind.
    """
    inputs = _inputs(network, products, sides, share // max(1, saved))
    of = _samples_of(sides)
    found = {}
    for name, g in derivatives.items():
        kernel = gram(solvable(inputs[name]), solvable(g), of.to(solvable(g).device), share)
        found[name] = root(kernel).to(g.dtype)
    return found


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


def _samples_of(sides: Sequence[Side]) -> Tensor:
    """Of which sample each row is, counted through all sides."""
    starts = accumulate((side.n for side in sides), initial=0)
    return torch.cat(
        [
            torch.arange(start, start + side.n).repeat_interleave(side.width)
            for start, side in zip(starts, sides, strict=False)
        ]
    )


def gram(a: Tensor, g: Tensor, sample: Tensor, most: int) -> Tensor:
    """The kernel of one weight in float64.

    Parameters
    ----------
    a
        ``(S, T, in)``: inputs of the layer.
    g
        ``(M, T, out)``: derivatives of M outputs in what the layer gives.
    sample
        ``(M,)``: which of the S samples each output is of.
    most
        Bytes for what is in between.

    Returns
    -------
    Tensor
        ``(M, M)``.
    """
    a, g = a.double(), g.double()
    between = torch.einsum("nti,msi->ntms", a, a)
    step = max(1, most // (8 * g.shape[1] ** 2 * len(g)))
    parts = []
    for rows, of in zip(g.split(step), sample.split(step), strict=True):
        products = torch.einsum("rto,mso->rtms", rows, g)
        parts.append((products * between[of][:, :, sample]).sum((1, 3)))
    return torch.cat(parts)


def root(matrix: Tensor) -> Tensor:
    """``R`` with ``R R^T`` equal to a Gram matrix up to the rounding of float32."""
    if not matrix.isfinite().all():  # training has diverged; a solver would fail
        return torch.full_like(matrix, torch.nan)
    # A Gram matrix squares sizes: rounding of float64 here is that of float32 in R.
    shift = 8 * torch.finfo(matrix.dtype).eps * matrix.trace()
    lower, failed = torch.linalg.cholesky_ex(
        matrix + shift * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    )
    if not failed:
        return lower
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt()


def solvable(tensor: Tensor) -> Tensor:
    """The tensor where there are factorisations and float64."""
    return tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()
