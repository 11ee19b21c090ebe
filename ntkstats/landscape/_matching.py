"""Images of points under a symmetry: the nearest one, a standard one, and how many there are."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from ntkstats.errors import LandscapeError
from ntkstats.landscape._symmetry import Symmetry, Units

_ROUNDS = 50  # of matching one layer after the other
_LISTED = 20_000  # groups up to this order are gone through where nothing else is exact
_SAME = 1e-6  # two units differ by less: they are equal


class Aligned(NamedTuple):
    """The image of a point nearest to another.

    Attributes
    ----------
    theta
        [d].
    distance
        Euclidean, to the reference.
    exact
        Whether no other image can be nearer (layers that share parameters are matched in turn,
        which need not find the best).
    """

    theta: np.ndarray
    distance: float
    exact: bool


def align(symmetry: Symmetry, reference: np.ndarray, theta: np.ndarray) -> Aligned:
    """Permute (and flip, and rescale) the hidden units of ``theta`` towards a reference.

    One hidden layer is an assignment problem, solved exactly; several are matched in turn until
    nothing improves, starting from the point as it is and from a pass through the layers in order.

    Parameters
    ----------
    symmetry
        What may be done.
    reference, theta
        Points [d].

    Raises
    ------
    LandscapeError
        They are no finite vectors of one length that holds all units.

    References
    ----------
    Ainsworth, Hayase and Srinivasa 2023, "Git re-basin" (weight matching); signs are added here.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkstats.landscape import Symmetry, Units
    >>> symmetry = Symmetry((Units(np.array([[0, 2], [1, 3]]), odd=True),))
    >>> here, there = np.array([1.0, 2.0, 3.0, 4.0]), np.array([-2.0, 1.0, -4.0, 3.0])
    >>> align(symmetry, here, there).distance
    0.0
    """
    for name, point in (("reference", reference), ("theta", theta)):
        _check_point(symmetry, name, point, np.shape(reference))
    if symmetry.align is not None:
        image = np.asarray(symmetry.align(reference, theta))
        return Aligned(image, float(np.linalg.norm(image - reference)), False)
    reference, theta = np.asarray(reference), np.asarray(theta)
    if any(layer.homogeneous for layer in symmetry.layers):
        reference, theta = balance(symmetry, reference), balance(symmetry, theta)
    if symmetry.separable:
        for layer in symmetry.layers:
            theta = _matched(layer, reference, theta)
        return Aligned(theta, float(np.linalg.norm(theta - reference)), True)
    starts = [theta, _matched_forward(symmetry, reference, theta)]
    images = [_in_turn(symmetry, reference, start) for start in starts]
    nearest = min(images, key=lambda image: float(np.linalg.norm(image - reference)))
    return Aligned(nearest, float(np.linalg.norm(nearest - reference)), False)


def _check_point(symmetry: Symmetry, name: str, point: np.ndarray, shape: tuple[int, ...]) -> None:
    largest = max((int(layer.index.max()) for layer in symmetry.layers), default=-1)
    if np.ndim(point) != 1 or np.shape(point) != shape or np.size(point) <= largest:
        msg = (
            f"{name} has shape {np.shape(point)}; expected two vectors of one length, which holds "
            f"the {largest + 1} parameters that the symmetry names."
        )
        raise LandscapeError(msg)
    if not np.isfinite(point).all():
        msg = f"{name} has entries that are not finite; expected a point where the loss is defined."
        raise LandscapeError(msg)


def _in_turn(symmetry: Symmetry, reference: np.ndarray, theta: np.ndarray) -> np.ndarray:
    best = float(np.linalg.norm(theta - reference))
    for _ in range(_ROUNDS):
        for layer in symmetry.layers:
            theta = _matched(layer, reference, theta)
        distance = float(np.linalg.norm(theta - reference))
        if distance >= best * (1 - 1e-12):
            break
        best = distance
    return theta


def _matched(
    layer: Units, reference: np.ndarray, theta: np.ndarray, columns: slice = slice(None)
) -> np.ndarray:
    """The best permutation and signs of one layer, the others as they are."""
    here, there = reference[layer.index[:, columns]], theta[layer.index[:, columns]]
    overlap = here @ there.T
    gain = np.abs(overlap) if layer.odd else overlap
    rows, chosen = linear_sum_assignment(gain, maximize=True)
    units = theta[layer.index[chosen]]
    if layer.odd:
        units = np.where(overlap[rows, chosen] < 0, -1.0, 1.0)[:, None] * units
    image = np.array(theta)
    image[layer.index] = units
    return image


def _matched_forward(symmetry: Symmetry, reference: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """A first guess for deep networks: layer after layer by what leads in.

    If the layers are listed from the input on, what leads into a layer is settled once the layers
    before it are; an image of the reference is then undone exactly.
    """
    for layer in symmetry.layers:
        inward = slice(layer.incoming) if layer.incoming else slice(None)
        theta = _matched(layer, reference, theta, inward)
    return theta


def balance(symmetry: Symmetry, theta: np.ndarray) -> np.ndarray:
    """Rescale homogeneous units so that what leads in is as long as what leads out.

    Of all scalings this one has the smallest norm.
    """
    theta = np.array(theta)
    layers = [layer for layer in symmetry.layers if layer.homogeneous]
    for _ in range(_ROUNDS if len(layers) > 1 else 1):
        worst = 0.0
        for layer in layers:
            units = theta[layer.index]
            inward = np.linalg.norm(units[:, : layer.incoming], axis=1)
            outward = np.linalg.norm(units[:, layer.incoming :], axis=1)
            alive = (inward > 0) & (outward > 0)
            ratio = np.where(alive, outward, 1) / np.where(alive, inward, 1)
            factor = np.sqrt(ratio)[:, None]
            units[:, : layer.incoming] *= factor
            units[:, layer.incoming :] /= factor
            theta[layer.index] = units
            worst = max(worst, float(np.abs(np.log(ratio)).max()))
        if worst < 1e-12:
            break
    return theta


def canonical(symmetry: Symmetry, thetas: np.ndarray) -> np.ndarray:
    """A standard image of each point [n, d]: units with largest entry positive, in order.

    Two images of one point nearly always get the same form; where entries tie, rounding may
    decide differently, so that different forms prove nothing.
    """
    thetas = np.array(thetas)
    for layer in symmetry.layers:
        units = thetas[:, layer.index]
        if layer.odd:
            # Of two entries of nearly the same size, the first one counts.
            size = np.abs(units)
            first = np.argmax(size > size.max(axis=-1, keepdims=True) * (1 - 1e-6), axis=-1)
            lead = np.take_along_axis(units, first[..., None], axis=-1)
            units = np.where(lead < 0, -units, units)
        place = np.argsort(units @ _ruler(units.shape[-1]), axis=-1)
        thetas[:, layer.index] = np.take_along_axis(units, place[..., None], axis=1)
    return thetas


def _ruler(m: int) -> np.ndarray:
    """A fixed direction along which different units have different places."""
    return np.random.default_rng(1).normal(size=m)


def same(
    symmetry: Symmetry, reference: np.ndarray, thetas: np.ndarray, tol: float = 1e-5
) -> np.ndarray:
    """Which of these points [n, d] are images of the reference [d]; booleans [n].

    Coordinates may differ by ``tol`` times one plus the norm.
    """
    thetas = np.atleast_2d(thetas)
    if symmetry.invariants is not None:
        here = np.asarray(symmetry.invariants(reference))
        there = np.stack([np.asarray(symmetry.invariants(theta)) for theta in thetas])
        return np.abs(there - here).max(axis=1) <= tol * (1 + np.abs(here).max())
    allowed = tol * (1 + np.linalg.norm(reference))
    alike = np.linalg.norm(thetas - reference, axis=1) <= allowed
    if not symmetry.layers:
        return alike
    if symmetry.separable:
        form = canonical(symmetry, reference[None])
        alike |= np.linalg.norm(canonical(symmetry, thetas) - form, axis=1) <= allowed
    for i in np.flatnonzero(~alike):
        alike[i] = align(symmetry, reference, thetas[i]).distance <= allowed
    return alike


def orbit_size(symmetry: Symmetry, theta: np.ndarray) -> int:
    """Number of distinct images of a point under permutations and sign flips.

    For one hidden layer of n odd units of which ``m0`` are zero and the others fall into classes
    of ``m_i`` units equal up to sign: ``2^n n! / (2^m0 m0! prod m_i!)``. Where layers share
    parameters, groups of up to 20000 elements are gone through; for larger ones the stabiliser is
    taken layer by layer, which misses only stabilisers that move several layers together.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkstats.landscape import Symmetry, Units
    >>> symmetry = Symmetry((Units(np.array([[0, 1], [2, 3]]), odd=True),))
    >>> [orbit_size(symmetry, np.array(t)) for t in ([1, 2, 3, 4], [1, 2, -1, -2], [1, 2, 0, 0])]
    [8, 4, 4]
    """
    if symmetry.orbit_size is not None:
        return int(symmetry.orbit_size(theta))
    theta = np.asarray(theta, float)
    if not symmetry.separable and symmetry.order <= _LISTED:
        return len(images(symmetry, theta))
    return symmetry.order // math.prod(_stabiliser(layer, theta) for layer in symmetry.layers)


def _stabiliser(layer: Units, theta: np.ndarray) -> int:
    """Order of the subgroup of one layer that leaves the point where it is."""
    left = list(theta[layer.index])
    tol = _SAME * (1 + np.abs(theta).max())
    order = 1
    while left:
        unit = left.pop()
        zero = np.abs(unit).max() <= tol
        signs = (1, -1) if layer.odd and not zero else (1,)
        alike = [any(np.abs(other - s * unit).max() <= tol for s in signs) for other in left]
        count = 1 + sum(alike)
        order *= math.factorial(count) * (2**count if zero and layer.odd else 1)
        left = [other for other, equal in zip(left, alike, strict=True) if not equal]
    return order


def images(symmetry: Symmetry, theta: np.ndarray) -> np.ndarray:
    """All distinct images [orbit size, d] of a point under permutations and sign flips."""
    found = np.asarray(theta, float)[None]
    for layer in symmetry.layers:
        n = layer.count
        signs = list(itertools.product((1.0, -1.0), repeat=n)) if layer.odd else [(1.0,) * n]
        several = []
        for order in itertools.permutations(range(n)):
            for sign in signs:
                image = np.array(found)
                image[:, layer.index] = found[:, layer.index[list(order)]] * np.array(sign)[:, None]
                several.append(image)
        found = _distinct(np.concatenate(several))
    return found


def _distinct(points: np.ndarray) -> np.ndarray:
    tol = _SAME * (1 + np.abs(points).max())
    kept: dict[tuple[int, ...], np.ndarray] = {}
    for point in points:
        kept.setdefault(tuple(np.round(point / (4 * tol)).astype(np.int64)), point)
    rows = np.stack(list(kept.values()))
    # Rounding may part two equal points; what is near an earlier one is dropped.
    near = np.abs(rows[:, None] - rows[None]).max(axis=-1) <= tol if len(rows) <= 4000 else None
    if near is None:
        return rows
    return rows[[not near[i, :i].any() for i in range(len(rows))]]
