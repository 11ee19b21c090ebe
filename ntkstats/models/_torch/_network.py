"""A module as a pure function of its parameters and a batch, with named heads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ntkstats.errors import ModelError
from ntkstats.models._heads import Heads, head_picker
from ntkstats.models._torch._linear import tapped
from ntkstats.models._torch._weights import Weights, in_precision
from ntkstats.typing import PyTree

Moving: TypeAlias = dict[str, Tensor]
"""``{name: tensor}``: the differentiated parameters, or some of them."""

Pick: TypeAlias = Callable[[Any, PyTree], dict[str, Tensor]]
"""``pick(raw output, batch) -> {head: (N, *out)}``."""


class Network(NamedTuple):
    """A module at one moment; evaluate it inside `evaluation` only.

    Attributes
    ----------
    module, weights
        Unwrapped, and what it is called with.
    pick
        From its raw output to heads.
    kwargs
        Keywords of every call.
    coupled
        True if the samples of a batch interact: the batch then counts as one sample.
    layers
        ``{name of its weight: layer}`` where a tap is differentiated instead of the weight.
    """

    module: nn.Module
    weights: Weights
    pick: Pick
    kwargs: Mapping[str, Any]
    coupled: bool
    layers: Mapping[str, nn.Linear] = MappingProxyType({})

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self.module).__name__

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the first parameter."""
        return next(iter(self.weights.moving.values())).device

    def batch(self, x: PyTree) -> PyTree:
        """NumPy inputs as tensors in the precision of the computation."""
        return jax.tree.map(
            lambda leaf: in_precision(torch.as_tensor(leaf, device=self.device), self.weights), x
        )

    def heads(self, moving: Moving, batch: PyTree) -> dict[str, Tensor]:
        """``{head: (N, *out)}`` of a batch; a dict of inputs is passed by keyword."""
        args, kwargs = _arguments(batch)
        values = {**self.weights.still, **self.weights.moving, **moving}
        # Ties are made here: torch would swap a module that has two names twice, and leave it so.
        placed = {slot: values[name] for slot, name in self.weights.slots.items()}
        both = {**kwargs, **self.kwargs}
        with tapped(self.layers, values):
            raw = functional_call(self.module, placed, args, both, tie_weights=False)
        return self.pick(raw, batch)

    def flat(self, moving: Moving, sample: PyTree) -> Tensor:
        """``(C,)`` outputs of one sample (inputs without the sample axis), heads in a row.

        With ``coupled`` the sample is the whole batch, and ``C`` its samples times its outputs.
        """
        batch = sample if self.coupled else jax.tree.map(lambda leaf: leaf[None], sample)
        heads = self.heads(moving, batch)
        if self.coupled:
            rows = [value.reshape(value.shape[0], -1) for value in heads.values()]
            return torch.cat(rows, 1).reshape(-1)
        return torch.cat([value.reshape(-1) for value in heads.values()])

    def samples(self, x: PyTree) -> PyTree:
        """The inputs with one axis of samples in front, as `flat` takes them one by one."""
        return jax.tree.map(lambda leaf: leaf[None], x) if self.coupled else x


def picker(heads: Heads) -> Pick:
    """From ``heads=`` of `as_model`; its functions may ask for the batch as well."""
    if not isinstance(heads, Mapping):
        by_name: Callable[[Any], Any] = head_picker(heads, is_array=torch.is_tensor)
        return lambda raw, batch: by_name(raw)  # noqa: ARG005
    both = {
        name: (lambda pair, pick=pick: pick(*pair))
        if callable(pick) and _takes_batch(pick)
        else (lambda pair, pick=pick: pick(pair[0]))
        if callable(pick)
        else pick
        for name, pick in heads.items()
    }
    by_function: Callable[[Any], Any] = head_picker(both, is_array=torch.is_tensor)
    return lambda raw, batch: by_function((raw, batch))


def _takes_batch(pick: Callable[..., Any]) -> bool:
    """Whether a function needs a second argument."""
    try:
        parameters = inspect.signature(pick).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) == 2


def _arguments(batch: PyTree) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, tuple | list):
        return tuple(batch), {}
    return (batch,), {}


def check_heads(network: Network, heads: Mapping[str, Tensor], n: int) -> None:
    """Refuse outputs without a sample axis, entries or a derivative.

    Raises
    ------
    ModelError
    """
    for name, value in heads.items():
        if value.shape[:1] != (n,) or not value.numel():
            msg = (
                f"head {name!r} of {network.name} has shape {tuple(value.shape)} on {n} samples; "
                f"expected ({n}, ...). Pick an output with one entry for each sample, e.g. "
                'heads={"output": lambda out: out.logits[:, -1]}; a mean over the batch is none.'
            )
            raise ModelError(msg)
        if not value.is_floating_point():
            msg = (
                f"head {name!r} of {network.name} has dtype {value.dtype}; expected a real "
                "floating-point output, since others have no derivative here. Pick logits or "
                "values, or torch.view_as_real of a complex output."
            )
            raise ModelError(msg)
