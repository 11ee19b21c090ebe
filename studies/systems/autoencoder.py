"""Autoencoders of images, plain and variational (Kingma & Welling, 2014).

Two kernels: that of the ``reconstruction`` (all pixels, summed; estimated from random signs where
they are many), to which encoder and decoder each contribute their part of ``layer_trace``, and that
of the ``code``, to which only the encoder does. For the variational one the code is the mean, and
the reconstruction is that of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import ntkstats as nts
from ntkstats.training import Task
from ntkstats.typing import Array, Params
from studies._errors import StudyError
from studies._settings import setting
from studies.datasets import Data
from studies.systems._layers import ACTIVATIONS, initialiser
from studies.systems._options import Activation, Init, Learning, at_least, optimizer, sizes
from studies.systems._supervised import (
    Problem,
    fit,
    measured,
    of_kind,
    of_module,
    squared_error,
    training_samples,
)
from studies.systems._train import Measured, Progress, sampled, train_task


@dataclass(frozen=True)
class Autoencoder(Learning):
    """Settings. Two cores: as they are. One GPU: mnist5k, widths 512,256, 10 seeds."""

    dataset: str = setting("digits", "images: digits, mnist5k, mnist, cifar10")
    widths: tuple[int, ...] = setting((64, 32), "hidden layers of the encoder; decoder reversed")
    code: int = setting(8, "numbers that an image is reduced to")
    probe: int = setting(50, "samples on which the NTK is taken")
    seeds: int = setting(3, "seeds, trained together as one program")

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes(self, "widths")
        at_least(self, 1, "code")


@dataclass(frozen=True)
class VAE(Autoencoder):
    """Settings of the variational one; sizes as for `Autoencoder`."""

    beta: float = setting(1.0, "weight of the divergence of the code from the prior")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "beta")
        if self.corruption:
            msg = f"corruption={self.corruption}; a VAE has no targets that could be wrong."
            raise StudyError(msg)


class Coder(nn.Module):
    """Dense encoder and decoder; if variational, the code has a variance."""

    widths: tuple[int, ...]
    code: int
    pixels: int
    variational: bool
    activation: Activation = "relu"
    init_weights: Init = "lecun"
    init_scale: float = 1.0

    def setup(self) -> None:
        """Make the layers."""
        weights = initialiser(self.init_weights, self.init_scale)

        def dense(width: int) -> nn.Module:
            return nn.Dense(width, kernel_init=weights)

        self.encoder = [dense(width) for width in self.widths]
        self.mean = dense(self.code)
        if self.variational:
            self.log_variance = dense(self.code)
        self.decoder = [*(dense(width) for width in reversed(self.widths)), dense(self.pixels)]

    def encode(self, images: Array) -> Array:
        """The last hidden layer ``(N, width)`` of images ``(N, ...)``."""
        h = images.reshape(images.shape[0], -1)
        for layer in self.encoder:
            h = ACTIVATIONS[self.activation](layer(h))
        return h

    def decode(self, code: Array) -> Array:
        """Pixels ``(N, pixels)`` of codes ``(N, code)``."""
        *inner, last = self.decoder
        for layer in inner:
            code = ACTIVATIONS[self.activation](layer(code))
        return last(code)

    def __call__(self, images: Array) -> dict[str, Array]:
        """Reconstruction and code of images."""
        hidden = self.encode(images)
        code = self.mean(hidden)
        outputs = {"reconstruction": self.decode(code), "code": code}
        if self.variational:
            outputs["log_variance"] = self.log_variance(hidden)
        return outputs

    def bound(self, images: Array, noise: Array, beta: float) -> Array:
        """Negative evidence bound ``(N,)`` in nats, up to a constant, with unit-variance pixels."""
        hidden = self.encode(images)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        pixels = self.decode(mean + jnp.exp(log_variance / 2) * noise)
        error = 0.5 * ((pixels - images.reshape(pixels.shape)) ** 2).sum(-1)
        prior = 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1)
        return error + beta * prior


def problem(config: Autoencoder) -> Problem:
    """The network and its data: the targets are the images themselves."""
    data = of_kind(config.dataset, Data, seed=config.seed)
    data = data._replace(y_train=_flat(data.x_train), y_test=_flat(data.x_test))
    module = coder(config, data)
    init, apply = of_module(module, data.x_train)
    heads = ("reconstruction", "code")
    return Problem(
        "autoencoder",
        data,
        init,
        lambda params, x: apply(params, x)["reconstruction"],
        nts.as_model(module, heads=heads),
        squared_error,
        heads,
        "reconstruction",
    )


def train(config: Autoencoder, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds and leave the recorded run at `path`.

    Raises
    ------
    StudyError
        The settings do not fit the data.
    """
    fit(problem(config), config, path, progress=progress)


def train_vae(config: VAE, path: Path, *, progress: Progress = None) -> None:
    """The same for the variational one; ``loss_bound`` is the negative evidence bound.

    Raises
    ------
    StudyError
        The settings do not fit the data, or ask for wrong targets, of which there are none.
    """
    found = problem(config)
    data = found.data
    about = {
        "system": "vae",
        "data": {"name": data.name, "source": data.source, "licence": data.licence},
    }
    train_task(
        variational(found, config),
        bounded(found, config),
        config,
        path,
        about=about,
        progress=progress,
    )


def variational(found: Problem, config: VAE) -> Task:
    """Minimise the negative evidence bound, with fresh samples and noise in every update."""
    images = jnp.asarray(training_samples(found.data, config)[0])
    module = coder(config, found.data)

    def objective(params: Params, key: Array) -> Array:
        batch_key, noise_key = jax.random.split(key)
        batch = images[jax.random.randint(batch_key, (config.batch_size,), 0, len(images))]
        noise = jax.random.normal(noise_key, (config.batch_size, config.code))
        return _bound(module, params, batch, noise, config.beta).mean() / batch[0].size

    return sampled(found.init, objective, optimizer(config))


def bounded(found: Problem, config: VAE) -> Measured:
    """Records of the plain one, and the bound on the probes; their noise is part of the inputs."""
    module = coder(config, found.data)
    rng = np.random.default_rng([config.seed, 4])

    def with_noise(probe: nts.Probe) -> nts.Probe:
        noise = rng.normal(size=(probe.n, config.code)).astype(np.float32)
        return nts.Probe({"images": probe.x, "noise": noise}, probe.y, name=probe.name)

    _, plain_apply = of_module(module, found.data.x_train)

    def apply(params: Params, x: Any) -> dict[str, Array]:
        outputs = plain_apply(params, x["images"])
        bound = _bound(module, params, x["images"], x["noise"], config.beta)
        return {name: outputs[name] for name in found.heads} | {"bound": bound}

    plain = measured(found, config)
    bounds = [
        replace(nts.collectors.loss(_as_it_is, head="bound", probe=part), name=f"bound_{part}")
        for part in (None, "test")
    ]
    return Measured(
        nts.as_model(apply, name="Coder"),
        [with_noise(probe) for probe in plain.probes],
        (*plain.collectors, *bounds),
    )


def coder(config: Autoencoder, data: Any) -> Coder:
    """The network of a config."""
    return Coder(
        config.widths,
        config.code,
        data.y_train.shape[1],
        isinstance(config, VAE),
        config.activation,
        config.init,
        config.init_scale,
    )


def _bound(module: Coder, params: Params, images: Array, noise: Array, beta: float) -> Array:
    return jnp.asarray(module.apply({"params": params}, images, noise, beta, method="bound"))


def _as_it_is(output: Array, y: Array) -> Array:  # noqa: ARG001
    return output


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)
