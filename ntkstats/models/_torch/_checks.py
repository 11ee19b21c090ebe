"""What is tested once, at the first measurement of a module."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import torch
from torch import Tensor, nn

from ntkstats.errors import CoupledSamplesError, EngineWarning, ModelError, NtkStatsError
from ntkstats.models._probe import Probe, describe_shapes
from ntkstats.models._torch._network import Moving, Network, check_heads
from ntkstats.models._torch._rows import Rows, by_sample, one_by_one, together
from ntkstats.models._torch._weights import check_unwritten
from ntkstats.typing import PyTree

MAX_SAMPLES = 32
# Kernels for other batch sizes round differently; interactions are far larger.
TOLERANCE = 1e-3
NUDGE = 0.1


def checked_rows(network: Network, probe: Probe) -> Rows:
    """Check the module on a probe, and find how its Jacobian can be had.

    Raises
    ------
    ModelError
        It fails on the probe, draws random numbers, writes to its buffers or inputs, or its
        outputs have no sample axis.
    CoupledSamplesError
        Samples interact and that was not declared.
    """
    try:
        with torch.no_grad():
            _check_outputs(network, probe)
        check_unwritten(network.module, network.weights)
        return _way(network, probe)
    except NtkStatsError:
        raise
    except Exception as error:
        # What torch says when a sample alone is to have a variance.
        if "more than 1 value per channel" in str(error) and not network.coupled:
            _refuse_norms_over_the_batch(network, error)
        msg = (
            f"{network.name} fails on the probe {probe.name!r} of shape "
            f"{describe_shapes(probe.x)}: {type(error).__name__}: {error} Expected inputs that "
            "the module takes: an array is passed as it is, a tuple as positional arguments, a "
            "dict by keyword. Give the probe the shapes and dtypes of a training batch."
        )
        raise ModelError(msg) from error


def _check_outputs(network: Network, probe: Probe) -> None:
    used = np.unique(np.linspace(0, probe.n - 1, min(probe.n, MAX_SAMPLES)).astype(int))
    moving = network.weights.moving
    if network.coupled:
        batch = network.batch(jax.tree.map(np.array, probe.x))
        _check_repeatable(network, batch, probe.n)
        return
    batch = network.batch(jax.tree.map(lambda leaf: np.asarray(leaf)[used], probe.x))
    # One sample says what is wrong with shapes; the draws of many do not agree by chance.
    for n in (1, len(used)):
        _check_repeatable(network, jax.tree.map(lambda leaf, n=n: leaf[:n], batch), n)
    # A last layer of zeros hides everything before it; hence also parameters a step away.
    for values in (moving, _nudged(moving)):
        whole = network.heads(values, batch)
        check_heads(network, whole, len(used))
        for i in range(len(used)):
            alone = network.heads(values, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], batch))
            for head, value in whole.items():
                _compare(network, head, value, alone[head][0], i, int(used[i]))


def _compare(
    network: Network, head: str, whole: Tensor, alone: Tensor, row: int, sample: int
) -> None:
    change = (whole[row] - alone).abs().max().item()
    scale = whole[torch.isfinite(whole)].abs().max().item() if whole.isfinite().any() else 0.0
    if change > TOLERANCE * scale:  # False for what is not a number
        msg = (
            f"samples of {network.name} interact: the output of head {head!r} for sample {sample} "
            f"is off by {change:.2g} (of {scale:.2g}) when it is computed alone. Expected every "
            "output to depend on its own input only. Typical causes are batch normalisation "
            "without running statistics and padding that no mask hides; or declare the "
            "interaction with as_model(..., coupled=True)."
        )
        raise CoupledSamplesError(msg)


def _check_repeatable(network: Network, batch: PyTree, n: int) -> None:
    """Call it twice on the same samples, which must neither change nor give something else."""
    moving = network.weights.moving
    versions = [leaf._version for leaf in jax.tree.leaves(batch)]
    ours = network.heads(moving, batch)
    check_heads(network, ours, n)
    if versions != [leaf._version for leaf in jax.tree.leaves(batch)]:
        msg = (
            f"{network.name} writes to its input in place; expected a forward that only reads it, "
            "since one input serves many evaluations. Write x = x + ... instead of x += ..., give "
            "the first activation inplace=False, or start with x = x.clone()."
        )
        raise ModelError(msg)
    again = network.heads(moving, batch)
    for head, value in ours.items():
        # The generator has moved on in between; rounding may differ on a GPU.
        if not torch.allclose(value, again[head], rtol=TOLERANCE, equal_nan=True):
            msg = (
                f"{network.name} gives another output each time (head {head!r}); expected a "
                "function. It draws random numbers in evaluation mode: make dropout and noise "
                "depend on self.training."
            )
            raise ModelError(msg)


def _refuse_norms_over_the_batch(network: Network, error: Exception) -> None:
    for path, layer in network.module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            msg = (
                f"samples of {network.name} interact: {type(layer).__name__} "
                f"{path or 'itself'!r} with track_running_stats=False takes mean and variance "
                "from the batch, also in evaluation mode, and a sample alone has no output. "
                "Expected every output to depend on its own input only. Track running statistics, "
                "take GroupNorm or LayerNorm, or declare the interaction with as_model(..., "
                "coupled=True)."
            )
            raise CoupledSamplesError(msg) from error


def _nudged(moving: Moving) -> Moving:
    def moved(value: Tensor) -> Tensor:
        size = value.square().mean().sqrt()
        step = NUDGE * torch.where(size > 0, size, torch.ones_like(size))
        pattern = torch.arange(value.numel(), device=value.device, dtype=value.dtype).add(1).cos()
        return value + step * pattern.reshape(value.shape)

    return {name: moved(value) for name, value in moving.items()}


def _way(network: Network, probe: Probe) -> Rows:
    """The fastest way that works, tried on one row."""
    samples = network.samples(network.batch(jax.tree.map(lambda leaf: np.asarray(leaf), probe.x)))
    few = jax.tree.map(lambda leaf: leaf[:2], samples)
    name = min(network.weights.moving, key=lambda n: network.weights.moving[n].numel())
    moving = {name: network.weights.moving[name]}
    _, expected = one_by_one(network, moving, few, 0, 1)
    size = expected[name].abs().max().item()
    reason = ""
    for way in (together, by_sample):
        try:
            _, found = way(network, moving, few, 0, 1)
        except Exception as error:  # whatever an operation without a batching rule raises
            reason = f"{type(error).__name__}: {str(error).strip()[:160]}"
        else:
            if not (found[name] - expected[name]).abs().max().item() > TOLERANCE * size:
                return way
            reason = "its derivatives there differ from those of autograd."
    msg = (
        f"torch.func cannot be used for {network.name} ({reason}). In-place operations, updates "
        "of batch statistics and autograd functions without setup_context break it. The Jacobian "
        "is taken by one backward pass for each output of each sample: exact, but slower. For "
        "speed write the operation in a way that torch.func knows."
    )
    warnings.warn(msg, EngineWarning, stacklevel=2)
    return one_by_one
