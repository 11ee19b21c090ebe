"""Finding the module, and running it without leaving a trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ntkstats.errors import ModelError

_WRAPPERS = ("DistributedDataParallel", "DataParallel", "_LightningModuleWrapperBase")


def torch_module_of(obj: Any) -> nn.Module | None:
    """The module, or the one that an object (`.model`) or a tuple holds, or None."""
    if isinstance(obj, nn.Module):
        return obj
    if isinstance(obj, tuple):
        modules = [entry for entry in obj if isinstance(entry, nn.Module)]
        return modules[0] if len(modules) == 1 else None
    model = getattr(obj, "model", None)
    return model if isinstance(model, nn.Module) else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, DataParallel and DistributedDataParallel.

    Raises
    ------
    ModelError
        Its parameters are spread over processes.
    """
    while True:
        kind = type(module).__name__
        if isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]
        elif kind in _WRAPPERS:
            module = module.module  # type: ignore[assignment]
        elif kind == "FullyShardedDataParallel" or _spread(module):
            msg = (
                f"the parameters of the {kind} are spread over processes; expected a module whose "
                "parameters are whole here. Gather them into a copy and record that."
            )
            raise ModelError(msg)
        else:
            return module


def _spread(module: nn.Module) -> bool:
    return any(hasattr(p, "full_tensor") for p in module.parameters())


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Run the live module in evaluation mode and in full precision; then all is as it was.

    Modes, wrapped forwards, the state of the random generators, autocast, TF32 and fast paths
    are put back also if something fails.
    """
    modules = list(module.modules())
    modes = [m.training for m in modules]
    # accelerate wraps `forward` of a module in half precision; the original lies beside it.
    wrapped = {
        m: m.__dict__["forward"]
        for m in modules
        if "forward" in m.__dict__ and "_original_forward" in m.__dict__
    }
    devices = {p.device for p in module.parameters()}
    kinds = sorted({device.type for device in devices})
    with ExitStack() as stack:
        stack.callback(_restore, modules, modes, wrapped)
        for m in modules:
            m.training = False  # `eval` may be overridden with side effects
        for m in wrapped:
            m.__dict__["forward"] = m.__dict__["_original_forward"]
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in kinds:
            if torch.amp.is_autocast_available(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        cuda = [device for device in devices if device.type == "cuda"]
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if cuda:
            stack.enter_context(_full_precision())
        if any(isinstance(m, nn.RNNBase) for m in modules):
            # cuDNN has no backward pass of recurrent layers in evaluation mode.
            stack.enter_context(_setting(torch.backends.cudnn, "enabled", value=False))
        fast = torch.backends.mha.get_fastpath_enabled()
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)  # it has no derivative
        stack.enter_context(warnings.catch_warnings())
        # vmap falls back to a loop for these operations: slower, not wrong.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def _restore(modules: list[nn.Module], modes: list[bool], wrapped: dict[nn.Module, Any]) -> None:
    for m, mode in zip(modules, modes, strict=True):
        m.training = mode
    for m, forward in wrapped.items():
        m.__dict__["forward"] = forward


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products and convolutions in float32, not TF32, on a GPU."""
    with ExitStack() as stack:
        for backend in (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None)):
            if hasattr(backend, "fp32_precision"):  # since torch 2.9
                stack.enter_context(_setting(backend, "fp32_precision", value="ieee"))
            elif backend is not None:
                stack.enter_context(_setting(backend, "allow_tf32", value=False))
        if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
            stack.enter_context(_setting(torch.backends.cudnn, "allow_tf32", value=False))
        yield


@contextmanager
def _setting(owner: Any, name: str, *, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
