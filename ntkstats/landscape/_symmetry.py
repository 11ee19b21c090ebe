"""What leaves a loss unchanged: hidden units that change places, change sign, or change scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.models import layer_names
from ntkstats.typing import Params

Place = tuple[str, int]
"""A parameter by its slash-joined path, and the axis along which the units are counted."""


@dataclass(frozen=True, eq=False)
class Units:
    """The hidden units of one layer, as the coordinates that belong to each.

    Made by [`hidden_units`][ntkstats.landscape.hidden_units] from the parameters of a network, or
    directly.

    Attributes
    ----------
    index
        ``[n, m]``: row i lists the coordinates of unit i, incoming ones first; rows correspond
        entry by entry, so that exchanging two rows leaves the loss unchanged.
    odd
        The activation is odd (tanh): negating a row leaves the loss unchanged.
    incoming
        How many of the m coordinates are incoming (weights and bias).
    homogeneous
        The activation is positively homogeneous (ReLU) and nothing else breaks it: multiplying
        the incoming coordinates by a > 0 and dividing the outgoing ones by it leaves the loss
        unchanged. Not so with weight decay.
    """

    index: np.ndarray
    odd: bool = False
    incoming: int = 0
    homogeneous: bool = False

    def __post_init__(self) -> None:
        index = np.asarray(self.index)
        if index.ndim != 2 or not np.issubdtype(index.dtype, np.integer) or not index.size:
            msg = (
                f"index has shape {index.shape} and dtype {index.dtype}; expected whole numbers "
                "[units, coordinates of one unit]."
            )
            raise LandscapeError(msg)
        if self.homogeneous and not 0 < self.incoming < index.shape[1]:
            msg = (
                f"incoming={self.incoming} of {index.shape[1]} coordinates; a homogeneous unit "
                "needs incoming and outgoing ones."
            )
            raise LandscapeError(msg)
        object.__setattr__(self, "index", index)

    @property
    def count(self) -> int:
        """Number of units."""
        return int(self.index.shape[0])

    @property
    def order(self) -> int:
        """Number of permutations and sign flips."""
        return math.factorial(self.count) * (2**self.count if self.odd else 1)


@dataclass(frozen=True, eq=False)
class Symmetry:
    """The symmetry group of a loss.

    Attributes
    ----------
    layers
        Hidden layers whose units may change places (and sign, and scale).
    invariants
        ``invariants(theta [d]) -> [k]`` for a group that cannot be listed, such as permutations
        and rotations of a cluster (its sorted distances, say): two points with equal loss, equal
        spectrum and equal invariants count as one.
    orbit_size
        ``orbit_size(theta) -> int`` for such a group: number of distinct images of a point.
    align
        ``align(reference, theta) -> theta``, the image nearest to the reference, for such a group.
    """

    layers: tuple[Units, ...] = ()
    invariants: Callable[[np.ndarray], np.ndarray] | None = None
    orbit_size: Callable[[np.ndarray], int] | None = None
    align: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    @cached_property
    def separable(self) -> bool:
        """Whether no coordinate belongs to units of two layers; matching is then exact."""
        used = np.concatenate([layer.index.ravel() for layer in self.layers] or [np.empty(0)])
        return len(np.unique(used)) == len(used)

    @property
    def order(self) -> int:
        """Number of permutations and sign flips of all layers."""
        return math.prod(layer.order for layer in self.layers)

    def check(self, dim: int) -> None:
        """Refuse coordinates that a loss of ``dim`` parameters does not have."""
        for layer in self.layers:
            low, high = int(layer.index.min()), int(layer.index.max())
            if low < 0 or high >= dim:
                msg = (
                    f"the symmetry names coordinates from {low} to {high}; expected 0 to "
                    f"{dim - 1}, since the loss has {dim} parameters."
                )
                raise LandscapeError(msg)
            if len(np.unique(layer.index)) != layer.index.size:
                msg = (
                    "a coordinate belongs to two units of one layer; expected every coordinate "
                    "once in `index`."
                )
                raise LandscapeError(msg)

    def random_element(self, rng: np.random.Generator, theta: np.ndarray) -> np.ndarray:
        """The image of ``theta`` [d] under a random permutation, sign flip and scaling."""
        image = np.array(theta)
        for layer in self.layers:
            units = image[layer.index[rng.permutation(layer.count)]]
            if layer.odd:
                units = units * rng.choice([-1.0, 1.0], size=(layer.count, 1))
            if layer.homogeneous:
                factor = np.exp(rng.normal(size=(layer.count, 1)))
                units = np.concatenate(
                    [units[:, : layer.incoming] * factor, units[:, layer.incoming :] / factor], 1
                )
            image[layer.index] = units
        return image


def hidden_units(
    params: Params,
    incoming: Sequence[Place],
    outgoing: Sequence[Place],
    *,
    odd: bool = False,
    homogeneous: bool = False,
) -> Units:
    """Name the hidden units of one layer by the parameters that lead into and out of them.

    Parameters
    ----------
    params
        The parameters, as `Model.split` gives them; a landscape counts coordinates in the order
        of `jax.tree.leaves`, each leaf raveled.
    incoming, outgoing
        ``(path, axis)``: slash-joined path of a leaf and the axis along which it has one entry a
        unit, for example ``[("Dense_0/kernel", 1), ("Dense_0/bias", 0)]`` and
        ``[("Dense_1/kernel", 0)]``.
    odd
        The activation is odd: units may change sign.
    homogeneous
        The activation is positively homogeneous and the loss has no weight decay.

    Raises
    ------
    LandscapeError
        There is no such leaf or axis, or the leaves have different numbers of units.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 1))}
    >>> hidden_units(params, [("a", 1)], [("b", 0)], odd=True).index
    array([[0, 3, 6],
           [1, 4, 7],
           [2, 5, 8]])
    """
    leaves = _coordinates(params)
    inward = [_rows(leaves, place) for place in incoming]
    outward = [_rows(leaves, place) for place in outgoing]
    counts = {len(rows) for rows in (*inward, *outward)}
    if len(counts) != 1:
        msg = (
            f"the leaves {[*incoming, *outgoing]} have {sorted(counts)} entries along the axes "
            "that were named; expected one number, that of the hidden units. Check the axes."
        )
        raise LandscapeError(msg)
    width = sum(rows.shape[1] for rows in inward)
    return Units(np.concatenate([*inward, *outward], axis=1), odd, width, homogeneous)


def _coordinates(params: Params) -> dict[str, np.ndarray]:
    """Where each leaf lies in the flat vector, in the shape of the leaf."""
    found, start = {}, 0
    for (_, path), leaf in zip(layer_names(params), jax.tree.leaves(params), strict=True):
        found[path] = start + np.arange(np.size(leaf)).reshape(np.shape(leaf))
        start += np.size(leaf)
    return found


def _rows(leaves: dict[str, np.ndarray], place: Any) -> np.ndarray:
    path, axis = place
    if path not in leaves:
        msg = f"there is no parameter {path!r}; expected one of {', '.join(leaves)}."
        raise LandscapeError(msg)
    where = leaves[path]
    if not -where.ndim <= axis < where.ndim:
        msg = f"parameter {path!r} has shape {where.shape}; it has no axis {axis}."
        raise LandscapeError(msg)
    return np.moveaxis(where, axis, 0).reshape(where.shape[axis], -1)
