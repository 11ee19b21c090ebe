"""Residual networks with the plan of ResNet-18 that classify images.

Four stages of two blocks as in He et al. (2016), with a stem for small images and group
normalisation (Wu & He, 2018) in place of batch normalisation, so that samples do not interact and
the kernel is that of one function. The kernel is that of the logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from flax import linen as nn

import ntkstats as nts
from ntkstats.typing import Array
from studies._settings import setting
from studies.datasets import Data
from studies.systems._layers import ACTIVATIONS, initialiser
from studies.systems._options import Activation, Init, Learning, positive, sizes
from studies.systems._supervised import Problem, fit, of_kind, of_module, scores_of
from studies.systems._train import Progress

_GROUPS = 8


@dataclass(frozen=True)
class ResNet(Learning):
    """Settings. Two cores: width 8, blocks 1,1. One GPU: width 64, mnist5k or cifar10, 5 seeds."""

    dataset: str = setting("digits", "images: digits, mnist5k, mnist, cifar10")
    width: int = setting(16, "channels of the first stage; each further one has twice as many")
    blocks: tuple[int, ...] = setting((2, 2, 2, 2), "residual blocks of each stage")
    init: Init = setting("he", "initial weights; normal, constant and zeros may fail to train")
    seeds: int = setting(3, "seeds, trained together as one program")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "width")
        sizes(self, "blocks")


class Network(nn.Module):
    """Stem, stages, mean over pixels, logits."""

    width: int
    blocks: tuple[int, ...]
    n_out: int
    activation: Activation = "relu"
    init_weights: Init = "he"
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Logits ``(N, n_out)`` of images ``(N, height, width, channels)``."""
        activate = ACTIVATIONS[self.activation]
        weights = initialiser(self.init_weights, self.init_scale)

        def convolution(x: Array, channels: int, window: int, stride: int, name: str) -> Array:
            layer = nn.Conv(
                channels,
                (window, window),
                (stride, stride),
                use_bias=False,
                kernel_init=weights,
                name=name,
            )
            return nn.GroupNorm(math.gcd(_GROUPS, channels), name=f"{name}_norm")(layer(x))

        x = activate(convolution(x, self.width, 3, 1, "stem"))
        for stage, blocks in enumerate(self.blocks):
            channels = self.width * 2**stage
            for block in range(blocks):
                name = f"stage{stage}_block{block}"
                stride = 2 if stage and not block else 1
                y = activate(convolution(x, channels, 3, stride, f"{name}_first"))
                y = convolution(y, channels, 3, 1, f"{name}_second")
                if x.shape != y.shape:
                    x = convolution(x, channels, 1, stride, f"{name}_shortcut")
                x = activate(x + y)
        return nn.Dense(self.n_out, kernel_init=weights, name="logits")(x.mean((1, 2)))


def problem(config: ResNet) -> Problem:
    """The network and its data."""
    data = of_kind(config.dataset, Data, seed=config.seed)
    n_out, loss, also = scores_of(data)
    module = Network(
        config.width, config.blocks, n_out, config.activation, config.init, config.init_scale
    )
    init, apply = of_module(module, data.x_train)
    return Problem("resnet", data, init, apply, nts.as_model(module), loss, also=also)


def train(config: ResNet, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds and leave the recorded run at `path`.

    Raises
    ------
    StudyError
        The settings do not fit the data.
    """
    fit(problem(config), config, path, progress=progress)
