"""The parameters of a module: names, which are differentiated, in which precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from torch import Tensor, nn

from ntkstats.errors import ModelError, ParamsError
from ntkstats.models._filter import ParamsFilter, partition


class Weights(NamedTuple):
    """What a module is called with; no tensor here lets the module write to its own.

    Attributes
    ----------
    moving
        Differentiated parameters by their dotted names; tied ones once.
    still
        The other parameters, and copies of the buffers.
    versions
        How often each buffer's copy had been written to when it was made.
    slots
        ``{where the module holds a tensor: its name in moving or still}``; tied ones share one.
    """

    moving: dict[str, Tensor]
    still: dict[str, Tensor]
    versions: dict[str, int]
    slots: dict[str, str]


def slashed(name: str) -> str:
    """``"0.weight"`` as ``"0/weight"``, without what `torch.compile` puts in front."""
    return "/".join(part for part in name.split(".") if part != "_orig_mod")


def weights_of(module: nn.Module, params_filter: ParamsFilter, *, wide: bool) -> Weights:
    """Parameters and buffers as a measurement uses them.

    Parameters
    ----------
    module
        Unwrapped.
    params_filter
        As for `as_model`; a predicate is given the shape and dtype of a parameter.
    wide
        Compute in float64; otherwise half precision is widened to float32.

    Raises
    ------
    ParamsError
        Nothing has requires_grad, the filter leaves nothing, or a chosen parameter is complex.
    ModelError
        A parameter has no numbers yet.
    """
    named = dict(module.named_parameters())
    for name, p in named.items():
        if isinstance(p, nn.parameter.UninitializedParameter) or p.is_meta:
            msg = (
                f"the parameter {name!r} of {type(module).__name__} has no numbers yet (a lazy "
                "layer, or on the meta device); expected an initialised module. Run it once, or "
                "load its weights, before recording."
            )
            raise ModelError(msg)
    shapes = {
        slashed(name): jax.ShapeDtypeStruct(tuple(p.shape), jnp.dtype(_dtype_name(p)))
        for name, p in named.items()
        if p.requires_grad
    }
    if not shapes:
        held = f"all {len(named)} have requires_grad=False" if named else "it has none at all"
        msg = (
            f"{type(module).__name__} has no trainable parameters ({held}); expected some with "
            "requires_grad=True, since the kernel is made of derivatives in these. Call "
            "module.requires_grad_(True), or that of the layers that are trained, before "
            "recording."
        )
        raise ParamsError(msg)
    kept, _ = partition(shapes, params_filter)
    moving = {
        name: _computed(p.detach(), wide=wide)
        for name, p in named.items()
        if kept.get(slashed(name)) is not None
    }
    still = {n: _computed(p.detach(), wide=wide) for n, p in named.items() if n not in moving}
    buffers = {n: _computed(b.detach().clone(), wide=wide) for n, b in module.named_buffers()}
    versions = {name: buffer._version for name, buffer in buffers.items()}
    return Weights(moving, still | buffers, versions, _slots(module))


def _slots(module: nn.Module) -> dict[str, str]:
    """Every place of a tensor, once: a submodule may be registered under several names."""
    names = {
        id(tensor): name for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    slots = {}
    for path, part in module.named_modules():
        for own, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                slots[f"{path}.{own}" if path else own] = names[id(tensor)]
    return slots


def check_unwritten(module: nn.Module, weights: Weights) -> None:
    """Refuse a module that writes to its buffers in evaluation mode.

    Raises
    ------
    ModelError
    """
    written = [n for n, v in weights.versions.items() if weights.still[n]._version != v]
    if written:
        msg = (
            f"{type(module).__name__} writes to its buffer {written[0]!r} in evaluation mode; "
            "expected a function that only reads. Batch statistics must not be updated there: "
            "look for F.batch_norm(..., training=True) or an in-place operation on a buffer, and "
            "make it depend on self.training."
        )
        raise ModelError(msg)


def check_same(module: nn.Module, before: Iterable[str], weights: Weights) -> None:
    """Refuse a module of whose parameters others are trained than at first.

    Raises
    ------
    ParamsError
    """
    was, now = set(before), set(weights.moving)
    if was == now:
        return
    changes = [
        f"{len(names)} {verb} ({', '.join(map(repr, sorted(names)[:3]))}"
        f"{', ...' if len(names) > 3 else ''})"
        for names, verb in ((was - now, "no longer"), (now - was, "only now"))
        if names
    ]
    msg = (
        f"other parameters of {type(module).__name__} have requires_grad=True than at the first "
        f"record: {' and '.join(changes)}. Expected the same ones throughout, since the kernel is "
        "made of derivatives in these and would be another quantity. Choose the parameters that "
        "are trained all the time with as_model(..., params_filter=), or finish this run and "
        "record on in a new one when layers are frozen or unfrozen."
    )
    raise ParamsError(msg)


def in_precision(value: Tensor, weights: Weights) -> Tensor:
    """An input in the precision of the computation, if it is floating."""
    if not value.is_floating_point():
        return value
    return value.to(next(iter(weights.moving.values())).dtype)


def _computed(tensor: Tensor, *, wide: bool) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if wide:
        return tensor.double()
    return tensor.float() if tensor.element_size() < 4 else tensor


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
