"""Small networks in torch with twins in jax.numpy on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def digits(n=200):
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:n] / 16, dtype=torch.float32), torch.tensor(y[:n])


def weights(module):
    """Copies of parameters and buffers as JAX arrays, nested by module."""
    tree = {}
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        *path, leaf = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = jnp.asarray(np.array(value.detach().numpy()))
    return tree


def mlp():
    return nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Dropout(0.5), nn.Linear(24, 10))


def mlp_twin(p, x):
    hidden = jnp.tanh(x @ p["0"]["weight"].T + p["0"]["bias"])
    return hidden @ p["3"]["weight"].T + p["3"]["bias"]


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 16, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x.reshape(-1, 1, 8, 8))))
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))


def cnn_twin(p, state, x):
    x = jax.lax.conv(x.reshape(-1, 1, 8, 8), p["conv"]["weight"], (1, 1), "SAME")
    x = x + p["conv"]["bias"][:, None, None]
    scale = p["norm"]["weight"] / jnp.sqrt(state["running_var"] + 1e-5)
    x = (x - state["running_mean"][:, None, None]) * scale[:, None, None]
    x = jax.nn.relu(x + p["norm"]["bias"][:, None, None])
    x = x.reshape(-1, 6, 4, 2, 4, 2).mean((3, 5)).reshape(-1, 96)
    return x @ p["head"]["weight"].T + p["head"]["bias"]


def cnn_weights(module):
    """Parameters and running statistics as a pair."""
    tree = weights(module)
    state = {k: tree["norm"].pop(k) for k in ("running_mean", "running_var")}
    tree["norm"].pop("num_batches_tracked")
    return tree, state


def train(module, x, y, steps, before_step=lambda step: None, lr=0.2):
    """Plain SGD on slices of the data; gives the final parameters."""
    optimizer = torch.optim.SGD(module.parameters(), lr, momentum=0.5)
    module.train()
    for step in range(steps):
        before_step(step)
        rows = slice(16 * step % 128, 16 * step % 128 + 32)
        loss = nn.functional.cross_entropy(module(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
