"""What is explored: a loss of a flat vector, and everything that is known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64
from ntkstats.errors import LandscapeError
from ntkstats.landscape._symmetry import Symmetry
from ntkstats.typing import Array, PyTree

Observe: TypeAlias = Callable[[Array], Mapping[str, Array]]
"""``observe(theta [d]) -> {name: scalar}``: what else is stored of a point, the NTK entropy say."""

Sampler: TypeAlias = Callable[[Array, int], Array]
"""``sampler(key, n) -> starts [n, d]``."""

Evaluate: TypeAlias = Callable[[Array, PyTree], tuple[Array, Array]]
"""``(x [d, B], data) -> loss [B], gradient [d, B]``."""

_IMAGES = 4  # images at which a declared symmetry is tried
_ALIKE = 1e-5  # losses that may be computed in float32 inside
_SCALES = (0.3, 1.0, 2.0, 4.0)


def gaussian_mixture(dim: int) -> Sampler:
    """Starts at several scales, since no single one reaches all minima of a network."""

    def sample(key: Array, n: int) -> Array:
        which, where = jax.random.split(key)
        scales = jnp.asarray(_SCALES)[jax.random.randint(which, (n, 1), 0, len(_SCALES))]
        return scales * jax.random.normal(where, (n, dim))

    return sample


@dataclass(frozen=True, eq=False)
class Problem:
    """A loss to explore.

    Attributes
    ----------
    loss
        ``loss(theta [d]) -> scalar``, or ``loss(theta, data)`` if ``data`` is given; pure, twice
        differentiable, in the precision of ``theta``.
    dim
        d.
    data
        Arrays that the loss reads; they are passed along instead of compiled in, and follow the
        precision of the search.
    symmetry
        What leaves the loss unchanged; see [`Symmetry`][ntkstats.landscape.Symmetry].
    zero_modes
        ``zero_modes(theta) -> [d, m]``: directions in which the loss is flat everywhere (rotations
        of a cluster, the shift of logits); any spanning set, not necessarily orthonormal.
    sample
        ``sample(key, n) -> [n, d]``: random starts. By default a mixture of normal distributions
        with standard deviations 0.3, 1, 2 and 4.
    observe
        ``observe(theta) -> {name: scalar}``: measured at every stationary point and along
        pathways.
    name
        What it is called in stores and figures.
    """

    loss: Callable[..., Array]
    dim: int
    data: PyTree = None
    symmetry: Symmetry = field(default_factory=Symmetry)
    zero_modes: Callable[[Array], Array] | None = None
    sample: Sampler | None = None
    observe: Observe | None = None
    name: str = "problem"

    def __post_init__(self) -> None:
        if not callable(self.loss):
            msg = (
                f"loss is a {type(self.loss).__name__}; expected a function loss(theta) -> scalar."
            )
            raise LandscapeError(msg)
        if not isinstance(self.dim, int) or self.dim < 1:
            msg = f"dim={self.dim!r}; expected the number of parameters, a whole number."
            raise LandscapeError(msg)
        self.symmetry.check(self.dim)
        self._check_loss()
        self._check_symmetry()

    def value(self, theta: Array, data: PyTree) -> Array:
        """The loss with its data as an argument, in the precision of ``theta``."""
        value = self.loss(theta) if self.data is None else self.loss(theta, data)
        return value.astype(jnp.result_type(theta))  # constants of the loss may be wider

    def starts(self, key: Array, n: int) -> np.ndarray:
        """``n`` random starts [n, d]."""
        sample = gaussian_mixture(self.dim) if self.sample is None else self.sample
        starts = np.asarray(sample(key, n))
        if starts.shape != (n, self.dim):
            msg = (
                f"sample(key, {n}) gave an array of shape {starts.shape}; expected {(n, self.dim)},"
                " one start a row."
            )
            raise LandscapeError(msg)
        return starts

    def data_as(self, dtype: Any) -> PyTree:
        """The data with its floating-point arrays in another precision."""
        return jax.tree.map(lambda leaf: _cast(leaf, dtype), self.data)

    def fingerprint(self) -> np.ndarray:
        """Values of the loss [5] at fixed points; two problems that agree in them are the same."""
        points = np.random.default_rng(20170307).normal(size=(5, self.dim))
        with x64():
            data = self.data_as(np.float64)
            values = _values(self)(jnp.asarray(points), data)
        return np.asarray(values, np.float64)

    def _check_loss(self) -> None:
        theta = jax.ShapeDtypeStruct((self.dim,), np.float64)
        arguments = (theta,) if self.data is None else (theta, self.data_as(np.float64))
        try:
            with x64():  # everything here is: see `batched`
                result = jax.eval_shape(self.loss, *arguments)
        except Exception as error:
            msg = (
                f"the loss of {self.name!r} cannot be called with a vector of shape ({self.dim},): "
                f"{type(error).__name__}: {error}. Check dim and the shapes of the data."
            )
            raise LandscapeError(msg) from error
        if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
            shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
            msg = (
                f"the loss of {self.name!r} gives shape {shape} and dtype {dtype}; expected a real "
                "scalar. Take the mean or the sum over samples inside it."
            )
            raise LandscapeError(msg)

    def _check_symmetry(self) -> None:
        """Evaluate the loss at images of a point; a wrong symmetry would merge different minima."""
        if not self.symmetry.layers:
            return
        rng = np.random.default_rng(0)
        theta = rng.normal(size=self.dim)
        # Scaling is left out: weight decay breaks it.
        group = Symmetry(tuple(replace(la, homogeneous=False) for la in self.symmetry.layers))
        points = [theta, *(group.random_element(rng, theta) for _ in range(_IMAGES))]
        with x64():
            data = None if self.data is None else self.data_as(np.float64)
            values = jax.vmap(lambda x: self.value(x, data))(jnp.asarray(np.stack(points)))
            ours, *others = values.tolist()
        for theirs in others:
            if abs(ours - theirs) > _ALIKE * (1 + abs(ours)):  # False for what is not a number
                msg = (
                    f"the loss of {self.name!r} changes from {ours:.6g} to {theirs:.6g} when units "
                    "change places or sign, and its symmetry says that it does not. Units may "
                    "change sign (odd=True) only if their activation is odd, like tanh; check the "
                    "coordinates of the units as well."
                )
                raise LandscapeError(msg)


def batched(problem: Problem) -> Evaluate:
    """``(x [d, B], data) -> loss [B], gradient [d, B]``, lanes last.

    Whoever calls it does so under x64 mode, for float32 lanes too: a loss that indexes arrays and
    was traced outside that mode first cannot be traced inside (JAX 0.10.1 mixes up its caches).
    """
    return jax.vmap(jax.value_and_grad(problem.value), in_axes=(-1, None), out_axes=(0, -1))


@lru_cache(maxsize=32)
def _values(problem: Problem) -> Callable[[Array, PyTree], Array]:
    return jax.jit(jax.vmap(problem.value, in_axes=(0, None)))


def _cast(leaf: Any, dtype: Any) -> Any:
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return leaf
    return np.asarray(leaf, dtype)
