"""Coupling flows: on the plane affine (Dinh et al., 2017), on the torus with circular splines."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from ntkstats.typing import Array
from studies.systems._layers import ACTIVATIONS
from studies.systems._options import Activation
from studies.systems.flow._spline import FULL, Spline, forward, inverse, spline
from studies.systems.flow._targets import Domain


class Flow(nn.Module):
    """``forward`` gives samples with their density, ``log_density`` the density of any points.

    Layers change one coordinate after the other, as the other one says. Noise is standard normal
    on the plane, and uniform on the torus.
    """

    domain: Domain
    layers: int
    width: int
    depth: int
    bins: int
    activation: Activation = "tanh"
    init_scale: float = 0.1

    def setup(self) -> None:
        """Make the conditioners."""
        n_out = 2 if self.domain == "plane" else 3 * self.bins + 1
        self.conditioners = [
            Conditioner(self.width, self.depth, n_out, self.activation, self.init_scale)
            for _ in range(self.layers)
        ]

    def __call__(self, noise: Array) -> tuple[Array, Array]:
        """Samples ``(N, 2)`` and log q of them ``(N,)``, from noise ``(N, 2)``."""
        x, log_q = noise, self.log_base(noise)
        for i, conditioner in enumerate(self.conditioners):
            moved, kept = x[:, i % 2], x[:, (i + 1) % 2]
            moved, change = self._layer(conditioner(self._seen(kept)), moved)
            x = _paired(moved, kept, i)
            log_q = log_q - change
        return x, log_q

    def log_density(self, x: Array) -> Array:
        """Log q ``(N,)`` of points ``(N, 2)``."""
        z = self.noise(x)
        return self(z)[1]

    def noise(self, x: Array) -> Array:
        """The noise ``(N, 2)`` that becomes `x`."""
        for i, conditioner in reversed(list(enumerate(self.conditioners))):
            moved, kept = x[:, i % 2], x[:, (i + 1) % 2]
            moved = self._undone(conditioner(self._seen(kept)), moved)
            x = _paired(moved, kept, i)
        return x

    def log_base(self, noise: Array) -> Array:
        """Log density ``(N,)`` of the noise."""
        if self.domain == "torus":
            return jnp.full_like(noise[:, 0], -2 * jnp.log(FULL))
        return -(noise**2).sum(-1) / 2 - jnp.log(FULL)

    def _seen(self, kept: Array) -> Array:
        if self.domain == "torus":
            return jnp.stack([jnp.cos(kept), jnp.sin(kept)], -1)
        return kept[:, None]

    def _layer(self, free: Array, x: Array) -> tuple[Array, Array]:
        if self.domain == "plane":
            scale = jnp.tanh(free[:, 0])
            return x * jnp.exp(scale) + free[:, 1], scale
        bent, change = forward(self._spline(free), jnp.mod(x, FULL))
        return jnp.mod(bent + free[:, -1], FULL), change

    def _undone(self, free: Array, y: Array) -> Array:
        if self.domain == "plane":
            return (y - free[:, 1]) * jnp.exp(-jnp.tanh(free[:, 0]))
        return inverse(self._spline(free), jnp.mod(y - free[:, -1], FULL))

    def _spline(self, free: Array) -> Spline:
        widths, heights, slopes = jnp.split(free[:, :-1], 3, axis=-1)
        return spline(widths, heights, slopes)


class Conditioner(nn.Module):
    """Dense layers whose last one starts small, so that the flow starts near the identity."""

    width: int
    depth: int
    n_out: int
    activation: Activation
    init_scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``(N, n_out)`` of ``(N, d)``."""
        for _ in range(self.depth):
            x = ACTIVATIONS[self.activation](nn.Dense(self.width)(x))
        last = nn.initializers.variance_scaling(self.init_scale**2, "fan_in", "normal")
        return nn.Dense(self.n_out, kernel_init=last)(x)


def _paired(moved: Array, kept: Array, i: int) -> Array:
    return jnp.stack([moved, kept] if i % 2 == 0 else [kept, moved], axis=-1)
