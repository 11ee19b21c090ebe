"""The networks of the engine benchmark at the sizes they are measured at, and their bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from studies.benchmarks import _networks
from studies.benchmarks._networks import Network

MEMORY_BAR = 0.25
DIFFERENCE_BAR = 1e-5
RATE_BAR = 0.5


@dataclass(frozen=True)
class Case:
    """A network and what is expected of its kernel.

    Attributes
    ----------
    title
        For the table.
    make
        Makes the network.
    speedup
        How many times faster than the peer's best implementation; None for no bar.
    speedup_default
        The same against the peer's default implementation.
    seconds
        Time that one kernel may take, on the GPU that the bar names.
    """

    title: str
    make: Callable[[], Network]
    speedup: float | None = None
    speedup_default: float | None = None
    seconds: float | None = None


CASES = {
    "mlp": Case(
        "MLP 784-512x3-10, N=64", partial(_networks.mlp, 784, 512, 10, 64), 1.2, speedup_default=150
    ),
    "cnn": Case("CNN 32-64-64 on 28x28, N=32, C=10", partial(_networks.cnn, 32, 10, 32), 3.0),
    "transformer": Case(
        "transformer d=128 L=4 T=64, N=16, C=10",
        partial(_networks.transformer, 128, 4, 64, 256, 10, 16),
        2.5,
    ),
    "resnet18": Case(
        "ResNet-18 on 32x32, N=4, C=10", partial(_networks.resnet18, 64, 10, 4, size=32)
    ),
    "decoder": Case(
        "GPT-2 form d=128 L=4 T=64 V=512, N=16, log-likelihood",
        partial(_networks.decoder, 128, 4, 64, 512, 16),
    ),
}
"""Against peers, on CPU."""

GPU_CASES = {
    "fcn": Case("FCN 3072-2048x3-8, N=16", partial(_networks.mlp, 3072, 2048, 8, 16), seconds=3e-4),
    "resnet18-224": Case(
        "ResNet-18 on 224x224, N=8, C=8",
        partial(_networks.resnet18, 64, 8, 8, size=224),
        seconds=15e-3,
    ),
    "gpt2": Case(
        "GPT-2 124M T=1024, N=1000, log-likelihood",
        partial(_networks.decoder, 768, 12, 1024, 50257, 1000, heads=12),
        seconds=10.0,
    ),
}
"""Alone, on a GPU; the bars are for an H100 or H200."""
