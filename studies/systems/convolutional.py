"""Convolutional networks that classify images. The kernel is that of the logits."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Convolutional(Learning):
    """Settings. Two cores: digits, 3 seeds. One GPU: mnist5k, channels 32,64, 10 seeds."""

    dataset: str = setting("digits", "images: digits, mnist5k, mnist, cifar10")
    channels: tuple[int, ...] = setting((16, 32), "channels of the convolutions")
    kernel: int = setting(3, "width of a convolution, in pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes(self, "channels")
        positive(self, "kernel")


class CNN(nn.Module):
    """Convolutions with a nonlinearity and average pooling, then one dense layer."""

    channels: tuple[int, ...]
    kernel: int
    n_out: int
    activation: Activation = "relu"
    init_weights: Init = "lecun"
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Logits ``(N, n_out)`` of images ``(N, height, width, channels)``."""
        weights = initialiser(self.init_weights, self.init_scale)
        for channels in self.channels:
            window = (self.kernel, self.kernel)
            x = ACTIVATIONS[self.activation](nn.Conv(channels, window, kernel_init=weights)(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(self.n_out, kernel_init=weights)(x.reshape(x.shape[0], -1))


def problem(config: Convolutional) -> Problem:
    """The network and its data."""
    data = of_kind(config.dataset, Data, seed=config.seed)
    n_out, loss, also = scores_of(data)
    module = CNN(
        config.channels, config.kernel, n_out, config.activation, config.init, config.init_scale
    )
    init, apply = of_module(module, data.x_train)
    return Problem("convolutional", data, init, apply, nts.as_model(module), loss, also=also)


def train(config: Convolutional, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds and leave the recorded run at `path`.

    Raises
    ------
    StudyError
        The settings do not fit the data.
    """
    fit(problem(config), config, path, progress=progress)
