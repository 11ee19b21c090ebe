r"""Linear layers: the Jacobian in a weight is a product, and its Gram matrix needs no entry of it.

With inputs :math:`a_{nt}` of a layer (sample n, position t) and derivatives :math:`g_{nct}` of
output c in what the layer gives, the row of the Jacobian is :math:`\sum_t g_{nct} a_{nt}^T`, and
the product of two rows is :math:`\sum_{ts} (a_{nt} \cdot a_{ms}) (g_{nct} \cdot g_{mds})`
(Novak, Sohl-Dickstein, Schoenholz, 2022). A zero added to what the layer gives, the tap, has the
derivative g.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ntkstats.models._torch._weights import Weights

Forward = Callable[[str, nn.Linear, Tensor], Tensor]


class Product(NamedTuple):
    """A layer whose weight is not differentiated itself.

    Attributes
    ----------
    layer
        The module.
    calls
        Shape of what it is given at each of its calls on one sample.
    """

    layer: nn.Linear
    calls: tuple[torch.Size, ...]

    @property
    def positions(self) -> int:
        """How often it multiplies on one sample."""
        return sum(call[:-1].numel() for call in self.calls)

    def pays(self, rows: int) -> bool:
        """Whether products of inputs and derivatives cost less than rows of the Jacobian."""
        a, b = self.layer.in_features, self.layer.out_features
        return rows < a * b and 2 * self.positions**2 * (a + b) <= a * b

    def taps(self, name: str, like: Tensor) -> dict[str, Tensor]:
        """Zeros to be added to what it gives, by names that no parameter has."""
        out = self.layer.out_features
        return {
            tap(name, i): like.new_zeros((*call[:-1], out)) for i, call in enumerate(self.calls)
        }


def tap(weight: str, call: int) -> str:
    """Name of the tap at a call of the layer."""
    return f"{weight} {call}"


def candidates(module: nn.Module, weights: Weights) -> dict[str, nn.Linear]:
    """``{name of its weight: layer}``: moving, in one place only, and multiplied as usual."""
    places = Counter(weights.slots.values())
    found = {}
    for path, layer in module.named_modules():
        usual = type(layer).forward is nn.Linear.forward and "forward" not in layer.__dict__
        if usual and isinstance(layer, nn.Linear):
            name = weights.slots.get(f"{path}.weight" if path else "weight", "")
            if name in weights.moving and places[name] == 1:
                found[name] = layer
    return found


@contextmanager
def replaced(layers: Mapping[str, nn.Linear], forward: Forward) -> Iterator[None]:
    """Layers that compute ``forward(name, layer, x)``; then all is as it was."""
    for name, layer in layers.items():
        layer.__dict__["forward"] = partial(forward, name, layer)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("forward", None)


@contextmanager
def tapped(layers: Mapping[str, nn.Linear], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Layers that add the taps among the values, call by call, to what they give."""
    calls: Counter[str] = Counter()

    def forward(name: str, layer: nn.Linear, x: Tensor) -> Tensor:
        zero = values[tap(name, calls[name])]
        calls[name] += 1
        return nn.functional.linear(x, layer.weight, layer.bias) + zero

    with replaced(layers, forward):
        yield


@contextmanager
def inputs_of(layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, list[Tensor]]]:
    """What each layer is given, call by call; no derivative goes through its multiplication.

    A call in another precision than the weight's gives an empty tensor instead.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def forward(name: str, layer: nn.Linear, x: Tensor) -> Tensor:
        out = nn.functional.linear(x, layer.weight.detach(), layer.bias)
        seen[name].append(x if out.dtype == x.dtype == layer.weight.dtype else x.new_empty(0))
        return out

    with replaced(layers, forward):
        yield seen


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
