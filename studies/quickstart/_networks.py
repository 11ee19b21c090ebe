"""The networks, in plain flax."""

from __future__ import annotations

import jax
from flax import linen as nn

from studies.quickstart._config import Training

CLASSES = 10


class MLP(nn.Module):
    """Dense layers with ReLU between."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits ``(N, 10)`` of images ``(N, height, width, 1)``."""
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(CLASSES)(x)


class CNN(nn.Module):
    """Convolutions 3 x 3 with ReLU and pooling, then one dense layer."""

    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits ``(N, 10)`` of images ``(N, height, width, 1)``."""
        for channels in self.channels:
            x = nn.relu(nn.Conv(channels, kernel_size=(3, 3))(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(CLASSES)(x.reshape(x.shape[0], -1))


def network(task: Training) -> nn.Module:
    """Build the network of a task."""
    return MLP(task.widths) if task.kind == "mlp" else CNN(task.widths)
