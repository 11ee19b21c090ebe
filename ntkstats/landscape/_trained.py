"""Between and around trained networks: barriers, curves, planes."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkstats._compat import x64
from ntkstats.errors import LandscapeError
from ntkstats.landscape._matching import align
from ntkstats.landscape._problem import Problem
from ntkstats.landscape._search import check_count
from ntkstats.typing import Array


class Profile(NamedTuple):
    """The loss along a curve between two points.

    Attributes
    ----------
    t
        Parameter of the curve, 0 to 1 [n].
    loss
        [n], float64.
    barrier
        Largest excess of the loss over the straight line between its values at the ends.
    theta
        Points of the curve [n, d].
    """

    t: np.ndarray
    loss: np.ndarray
    barrier: float
    theta: np.ndarray


def linear_barrier(
    problem: Problem,
    start: np.ndarray,
    end: np.ndarray,
    *,
    points: int = 25,
    aligned: bool = True,
) -> Profile:
    """Loss along the straight line between two networks.

    Parameters
    ----------
    problem
        The loss.
    start, end
        Points [d]; of networks, `flatten` their parameters.
    points
        Where to look, ends included.
    aligned
        First permute and flip the hidden units of ``end`` towards ``start``.

    Returns
    -------
    Profile
        With ``barrier >= 0``.

    Raises
    ------
    LandscapeError
        A point has another dimension.

    References
    ----------
    Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis"; Entezari et
    al. 2022 (permutations).

    Examples
    --------
    >>> import numpy as np
    >>> from ntkstats import landscape
    >>> camel = landscape.six_hump_camel()
    >>> one, other = np.array([-0.0898, 0.7127]), np.array([0.0898, -0.7127])
    >>> round(landscape.linear_barrier(camel, one, other, points=3).barrier, 3)
    1.032
    """
    start, end = (_vector(problem, point, name) for point, name in ((start, "start"), (end, "end")))
    check_count("points", points)
    if aligned:
        end = align(problem.symmetry, start, end).theta
    t = np.linspace(0, 1, max(points, 2))
    return _profile(problem, t, (1 - t)[:, None] * start + t[:, None] * end)


def mode_connection(
    problem: Problem,
    start: np.ndarray,
    end: np.ndarray,
    *,
    key: Array,
    bends: int = 3,
    steps: int = 500,
    learning_rate: float = 0.02,
    points: int = 61,
    aligned: bool = True,
) -> Profile:
    """Train a Bezier curve between two networks on which the loss stays low.

    Minimises the mean loss over the curve's parameter with Adam, one random point a lane and step,
    64 lanes; the ends stay.

    Parameters
    ----------
    problem
        The loss.
    start, end
        Points [d].
    key
        PRNG key of the points at which the curve is trained.
    bends
        Control points between the ends.
    steps, learning_rate
        Of Adam.
    points
        Where the trained curve is evaluated.
    aligned
        As for `linear_barrier`.

    References
    ----------
    Garipov et al. 2018, "Loss surfaces, mode connectivity, and fast ensembling of DNNs".

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntkstats import landscape
    >>> surface = landscape.mueller_brown()
    >>> a, b = np.array([-0.5582, 1.4417]), np.array([0.6235, 0.028])
    >>> curve = mode_connection(surface, a, b, key=jax.random.key(0), steps=50)
    >>> curve.barrier < landscape.linear_barrier(surface, a, b).barrier
    True
    """
    start, end = (_vector(problem, point, name) for point, name in ((start, "start"), (end, "end")))
    for name, value in (("bends", bends), ("steps", steps), ("points", points)):
        check_count(name, value)
    if aligned:
        end = align(problem.symmetry, start, end).theta
    inner = np.linspace(0, 1, bends + 2)[1:-1, None]
    with x64():
        ends = jnp.asarray(np.stack([start, end]))
        control = jnp.asarray((1 - inner) * start + inner * end)
        data = problem.data_as(np.float64)
        optimizer = optax.adam(learning_rate)

        def mean_loss(control: Array, t: Array) -> Array:
            thetas = _bezier(ends[0], control, ends[1], t)
            return jnp.mean(jax.vmap(problem.value, (0, None))(thetas, data))

        def step(carry: tuple[Array, optax.OptState], key: Array):  # type: ignore[no-untyped-def]
            control, state = carry
            t = jax.random.uniform(key, (64,), jnp.float64)
            updates, state = optimizer.update(jax.grad(mean_loss)(control, t), state)
            return (optax.apply_updates(control, updates), state), None

        keys = jax.random.split(key, steps)
        run = jax.jit(lambda c: jax.lax.scan(step, (c, optimizer.init(c)), keys)[0][0])
        t = np.linspace(0, 1, points)
        thetas = np.asarray(_bezier(ends[0], run(control), ends[1], jnp.asarray(t)))
    return _profile(problem, t, thetas)


def _bezier(start: Array, control: Array, end: Array, t: Array) -> Array:
    """Points [n, d] of a Bezier curve, by de Casteljau's repeated interpolation."""
    level = [jnp.broadcast_to(p, (len(t), len(start))) for p in (start, *control, end)]
    while len(level) > 1:
        level = [(1 - t)[:, None] * a + t[:, None] * b for a, b in pairwise(level)]
    return level[0]


class Plane(NamedTuple):
    """The loss on a plane through a point.

    Attributes
    ----------
    a, b
        Coordinates along the two directions [n].
    loss
        ``loss[i, j]`` at ``a[i], b[j]``.
    directions
        The two directions [2, d].
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    directions: np.ndarray


def loss_plane(
    problem: Problem,
    centre: np.ndarray,
    *,
    key: Array,
    filters: list[np.ndarray] | None = None,
    extent: float = 1.0,
    points: int = 25,
) -> Plane:
    """Loss on a plane of two random directions, normalised filter by filter.

    Parameters
    ----------
    problem
        The loss.
    centre
        The point in the middle [d].
    key
        PRNG key of the directions.
    filters
        Coordinates of each filter (the weights into one unit); each direction gets the norm of
        ``centre`` in each of them. By default the hidden units of the symmetry, everything else
        being one more.
    extent
        The plane reaches from ``-extent`` to ``extent`` in units of those norms.
    points
        On each side of the grid.

    References
    ----------
    Li et al. 2018, "Visualizing the loss landscape of neural nets" (filter normalisation).

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntkstats import landscape
    >>> problem = landscape.xor_network(2, 1e-2)
    >>> plane = loss_plane(problem, np.ones(12), key=jax.random.key(0), points=5)
    >>> plane.loss.shape, bool(np.isclose(plane.loss[2, 2], problem.loss(np.ones(12))))
    ((5, 5), True)
    """
    centre = _vector(problem, centre, "centre")
    check_count("points", points)
    if not extent > 0:
        msg = f"extent={extent!r}; expected a positive number."
        raise LandscapeError(msg)
    with x64():
        directions = np.array(jax.random.normal(key, (2, problem.dim), jnp.float64))
    groups = _filters(problem) if filters is None else [np.asarray(f, int) for f in filters]
    rest = np.setdiff1d(np.arange(problem.dim), np.concatenate([*groups, np.empty(0, int)]))
    for group in [*groups, rest] if rest.size else groups:
        length = np.linalg.norm(directions[:, group], axis=1, keepdims=True)
        directions[:, group] *= np.linalg.norm(centre[group]) / np.maximum(length, 1e-300)
    side = np.linspace(-extent, extent, points)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    loss = losses(problem, centre + grid @ directions).reshape(points, points)
    return Plane(side, side, loss, directions)


def _filters(problem: Problem) -> list[np.ndarray]:
    """What leads into each hidden unit."""
    return [
        row[: layer.incoming or row.size]
        for layer in problem.symmetry.layers
        for row in layer.index
    ]


def losses(problem: Problem, thetas: np.ndarray) -> np.ndarray:
    """The loss at points [n, d], float64, one after the other."""
    with x64():
        run = jax.jit(lambda thetas, data: jax.lax.map(lambda t: problem.value(t, data), thetas))
        return np.asarray(run(jnp.asarray(thetas, jnp.float64), problem.data_as(np.float64)))


def _profile(problem: Problem, t: np.ndarray, thetas: np.ndarray) -> Profile:
    loss = losses(problem, thetas)
    excess = loss - ((1 - t) * loss[0] + t * loss[-1])
    return Profile(t, loss, max(float(excess.max()), 0.0), thetas)


def _vector(problem: Problem, point: np.ndarray, name: str) -> np.ndarray:
    point = np.asarray(point, float)
    if point.shape != (problem.dim,):
        msg = (
            f"{name} has shape {point.shape}; expected ({problem.dim},), the parameters of "
            f"{problem.name!r} as one vector."
        )
        raise LandscapeError(msg)
    if not np.isfinite(point).all():
        msg = (
            f"{name} has {int((~np.isfinite(point)).sum())} entries that are not finite; expected "
            "the parameters of a network that has not diverged."
        )
        raise LandscapeError(msg)
    return point
