"""Normalising flows and variational autoencoders."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .basics import run, stack
from .building import draw, made, of_linen

N, D = 5, 4
POINTS = draw(N, D, seed=1)


def log_normal(z):
    """Log-density of a standard normal vector, a sample."""
    return -0.5 * jnp.sum(jnp.square(z), -1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


# --- coupling flow ----------------------------------------------------------------------------


def real_nvp(params, x):
    """Affine couplings of alternating halves, from data to noise."""
    log_det = 0.0
    for i, layer in enumerate(params):
        fixed, moved = jnp.split(x, 2, -1) if i % 2 else jnp.split(x, 2, -1)[::-1]
        scale = jnp.tanh(run(layer["scale"], fixed))
        moved = moved * jnp.exp(scale) + run(layer["shift"], fixed)
        log_det = log_det + scale.sum(-1)
        x = jnp.concatenate([fixed, moved] if i % 2 else [moved, fixed], -1)
    return {"log_density": log_normal(x) + log_det, "point": x}


def coupling_flow(head):
    params = [
        {
            "scale": stack((D // 2, 8, D // 2), 10 * i),
            "shift": stack((D // 2, 8, D // 2), 10 * i + 5),
        }
        for i in range(3)
    ]
    return made(real_nvp, params, POINTS, head)


# --- masked autoregressive flow ---------------------------------------------------------------


def _masks(hidden):
    """Connections from lower degrees to higher ones (strictly, in the last layer)."""
    degrees = np.arange(D), np.arange(hidden) % (D - 1), np.tile(np.arange(D), 2)
    first = degrees[0][:, None] <= degrees[1]
    last = degrees[1][:, None] < degrees[2]
    return first.astype(np.float32), last.astype(np.float32)


def masked_autoregressive(params, x):
    """Two flows with the order of the coordinates reversed between them."""
    log_det = 0.0
    for layer in params:
        masks = _masks(layer["w1"].shape[1])
        h = jnp.tanh(x @ (layer["w1"] * masks[0]) + layer["b1"])
        shift, scale = jnp.split(h @ (layer["w2"] * masks[1]) + layer["b2"], 2, -1)
        scale = jnp.tanh(scale)
        x = ((x - shift) * jnp.exp(-scale))[..., ::-1]
        log_det = log_det - scale.sum(-1)
    return {"log_density": log_normal(x) + log_det, "point": x}


def autoregressive_flow(head):
    shapes = {"w1": (D, 12), "b1": (12,), "w2": (12, 2 * D), "b2": (2 * D,)}
    params = [
        {
            name: draw(*shape, seed=10 * i + j, scale=0.5)
            for j, (name, shape) in enumerate(shapes.items())
        }
        for i in range(2)
    ]
    return made(masked_autoregressive, params, POINTS, head)


# --- variational autoencoder ------------------------------------------------------------------


class VAE(nn.Module):
    """A convolutional encoder and decoder; the noise is given, every other pixel is put out."""

    @nn.compact
    def __call__(self, x):
        image = x["image"]
        h = nn.swish(nn.Conv(12, (3, 3), strides=(2, 2))(image))
        h = nn.swish(nn.Dense(24)(h.reshape(h.shape[0], -1)))
        mean, log_var = nn.Dense(6, name="mean")(h), nn.Dense(6, name="log_var")(h)
        z = mean + jnp.exp(0.5 * log_var) * x["noise"]
        h = nn.swish(nn.Dense(2 * 2 * 12)(z)).reshape(-1, 2, 2, 12)
        logits = nn.ConvTranspose(1, (3, 3), strides=(2, 2))(h)
        fit = jnp.sum(
            image * nn.log_sigmoid(logits) + (1 - image) * nn.log_sigmoid(-logits), (1, 2, 3)
        )
        divergence = 0.5 * jnp.sum(jnp.exp(log_var) + jnp.square(mean) - 1 - log_var, -1)
        return {"reconstruction": nn.sigmoid(logits[:, ::2, ::2]), "elbo": fit - divergence}


def vae(head):
    image = jax.nn.sigmoid(draw(3, 4, 4, 1, seed=2))
    return of_linen(VAE(), {"image": np.asarray(image), "noise": draw(3, 6, seed=3)}, head)


SYSTEMS = {
    "coupling_flow_density": lambda: coupling_flow("log_density"),
    "coupling_flow_point": lambda: coupling_flow("point"),
    "autoregressive_flow_density": lambda: autoregressive_flow("log_density"),
    "autoregressive_flow_point": lambda: autoregressive_flow("point"),
    "vae_reconstruction": lambda: vae("reconstruction"),
    "vae_elbo": lambda: vae("elbo"),
}
