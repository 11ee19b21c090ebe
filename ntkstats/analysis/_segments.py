"""A curve as a chain of straight segments: where it bends, and how often."""

from __future__ import annotations

import numpy as np

# Parameters of one more segment: its level and the place of its knot.
_PARAMETERS = 2


def best_polylines(u: np.ndarray, y: np.ndarray, most: int) -> list[np.ndarray]:
    """Knots of the best polylines with 1, 2, ..., `most` segments through points of the curve.

    Exact, by dynamic programming (Bellman, 1961): the cost of a segment does not depend on the
    others, because segments meet at points of the curve.

    Parameters
    ----------
    u
        Abscissa [T], increasing.
    y
        The curve [T].
    most
        Largest number of segments, from 1 to T - 1.

    Returns
    -------
    list of numpy.ndarray
        Indices of the knots, ends included: [2], [3], ...
    """
    cost = _segment_costs(u, y)
    last = u.size - 1
    reach = cost[0].copy()  # best cost from the start to each point
    knots = [np.array([0, last])]
    came: list[np.ndarray] = []
    for _ in range(1, most):
        total = reach[:, None] + cost  # via i, to j
        before = np.argmin(total, axis=0)
        reach = total[before, np.arange(u.size)]
        came.append(before)
        if not np.isfinite(reach[last]):
            break
        path = [last]
        for step in reversed(came):
            path.append(int(step[path[-1]]))
        knots.append(np.array([0, *path[::-1]]))
    return knots


def _segment_costs(u: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distance ``[i, j]`` of the points between i and j from the line through both."""
    # sums from i on, by differences of running sums; centred, so that little cancels
    u, y = u - u.mean(), y - y.mean()
    size = u.size

    def between(values: np.ndarray) -> np.ndarray:
        running = np.concatenate([[0.0], np.cumsum(values)])
        return running[None, 1:] - running[:-1, None]  # sum over i..j

    count = between(np.ones(size))
    su, sy = between(u), between(y)
    # moments about the point i
    uu = between(u * u) - 2 * u[:, None] * su + count * (u * u)[:, None]
    yy = between(y * y) - 2 * y[:, None] * sy + count * (y * y)[:, None]
    uy = between(u * y) - u[:, None] * sy - y[:, None] * su + count * (u * y)[:, None]
    after = np.triu(np.ones((size, size), dtype=bool), k=1)
    run = np.where(after, u[None, :] - u[:, None], 1.0)
    slope = (y[None, :] - y[:, None]) / run
    squared = np.clip(yy - 2 * slope * uy + slope**2 * uu, 0.0, None)
    return np.where(after, squared, np.inf)


def levels_at(u: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Matrix ``[K + 1, T]`` that takes a curve to the levels of its best chain at these knots.

    Least squares in the basis of hat functions, so that all records of a segment speak for its
    ends and not only those at the knots.
    """
    return np.linalg.pinv(hats(u, knots))


def hats(u: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Hat functions ``[T, K + 1]`` of the knots."""
    return np.stack([np.interp(u, u[knots], row) for row in np.eye(knots.size)], axis=1)


def choose_knots(u: np.ndarray, curves: np.ndarray, most: int) -> np.ndarray:
    """Knots of the mean of several curves; their number by the Schwarz criterion (Yao, 1988).

    Parameters
    ----------
    u
        Abscissa [T].
    curves
        One column a replicate [T, R]. Offsets of whole replicates say nothing about bends and
        are taken out; what scatter remains is the noise.
    most
        Largest number of segments.
    """
    centred = curves - curves.mean(axis=0) + curves.mean()
    mean = centred.mean(axis=1)
    n = centred.size
    scatter = float(((centred - mean[:, None]) ** 2).sum())
    scale = float(np.abs(curves).max(initial=0.0))
    # numbers stored in float32 bend by their rounding
    floor = n * (np.finfo(np.float32).eps * scale) ** 2 + np.finfo(float).tiny
    best, chosen = np.inf, np.array([0, u.size - 1])
    for knots in best_polylines(u, mean, most):
        fit = hats(u, knots) @ (levels_at(u, knots) @ mean)
        misfit = curves.shape[1] * float(((mean - fit) ** 2).sum())
        score = n * np.log((misfit + scatter + floor) / n)
        score += _PARAMETERS * (knots.size - 1) * np.log(n)
        if score < best:
            best, chosen = score, knots
    return chosen
