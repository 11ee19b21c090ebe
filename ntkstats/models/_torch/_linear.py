"""Linear layers: seeing what they are given, and differentiating in what they give.

A zero that is added to what a layer gives, the tap, has the derivative that would reach it there.
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
