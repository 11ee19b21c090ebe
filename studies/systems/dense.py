"""Dense networks that classify images or predict numbers.

The kernel is that of the logits (summed over classes) or of the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flax import linen as nn

import ntkstats as nts
from ntkstats.typing import Array
from studies._settings import setting
from studies.datasets import Data, Dataset, Table
from studies.systems._layers import ACTIVATIONS, initialiser
from studies.systems._options import Activation, Init, Learning, positive
from studies.systems._supervised import Problem, fit, of_kind, of_module, scores_of
from studies.systems._train import Progress


@dataclass(frozen=True)
class Dense(Learning):
    """Settings. Two cores: as they are, 5 seeds of MNIST. One GPU: width 1000, 20 seeds."""

    dataset: str = setting("mnist5k", "images or a table: mnist5k, digits, auto_mpg, concrete, ...")
    width: int = setting(64, "units of each hidden layer")
    depth: int = setting(2, "hidden layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "width", "depth")


class MLP(nn.Module):
    """Dense layers with a nonlinearity between."""

    width: int
    depth: int
    n_out: int
    activation: Activation = "relu"
    init_weights: Init = "lecun"
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs ``(N, n_out)`` of inputs ``(N, ...)``."""
        weights = initialiser(self.init_weights, self.init_scale)
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = ACTIVATIONS[self.activation](nn.Dense(self.width, kernel_init=weights)(x))
        return nn.Dense(self.n_out, kernel_init=weights)(x)


def problem(config: Dense) -> Problem:
    """The network and its data."""
    data: Dataset = of_kind(config.dataset, Data, Table, seed=config.seed)
    n_out, loss, also = scores_of(data)
    module = MLP(
        config.width, config.depth, n_out, config.activation, config.init, config.init_scale
    )
    init, apply = of_module(module, data.x_train)
    return Problem("dense", data, init, apply, nts.as_model(module), loss, also=also)


def train(config: Dense, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds and leave the recorded run at `path`.

    Raises
    ------
    StudyError
        The settings do not fit the data.
    """
    fit(problem(config), config, path, progress=progress)
