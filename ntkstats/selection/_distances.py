"""Selectors by distances in the feature space of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.ops import segment_sum

from ntkstats.errors import SelectionError
from ntkstats.selection._cholesky import squared_distance
from ntkstats.selection._maxdet import drawn
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array

FIRST = ("max", "random")


class Nearest(NamedTuple):
    """Where the nearest picked sample is.

    Attributes
    ----------
    squared
        ``(n,)`` squared distance to it; before the first pick, what decides that one.
    slot
        ``(n,)`` its slot.
    key, step
        Of the random numbers.
    """

    squared: Array
    slot: Array
    key: Array
    step: Array


def _start(key: Array, problem: Problem, first: str) -> Nearest:
    kernel, rows = problem.pool.kernel, problem.rows
    squared = kernel.diagonal()
    if first == "random":
        draw = jax.random.uniform(key, (rows.total,))
        squared = rows.scatter(draw).astype(squared.dtype)
    zero = jnp.zeros((), jnp.int32)
    return Nearest(squared, jnp.zeros(kernel.n, jnp.int32), key, zero)


def _update(state: Nearest, problem: Problem, i: Array, slot: Array) -> Nearest:
    kernel, rows = problem.pool.kernel, problem.rows
    column = kernel.column(kernel.anchor(i, rows))
    new = squared_distance(kernel, rows, i, column)
    closer = (new < state.squared) | (slot == 0)
    return state._replace(
        squared=jnp.where(closer, new, state.squared),
        slot=jnp.where(closer, slot, state.slot).astype(jnp.int32),
        step=state.step + 1,
    )


def _check_first(first: str) -> None:
    if first not in FIRST:
        msg = f"first={first!r}; expected one of {FIRST}."
        raise SelectionError(msg)


@dataclass(frozen=True)
class FarthestPoint(Greedy):
    """Pick the sample farthest from all picked ones (k-center, core-set).

    At most twice the covering radius that is possible. The score is the distance; that of the
    first pick its norm. O(N k s).

    Parameters
    ----------
    first
        ``"max"``: the largest norm; ``"random"``: any.

    Raises
    ------
    SelectionError
        There is no such ``first``.

    References
    ----------
    Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"; Sener and Savarese
    2018, "Active learning for convolutional neural networks: a core-set approach".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(kernel=selection.linear(jnp.array([[4.0], [1.0], [0.5], [3.5]])))
    >>> picked = selection.select(selection.FarthestPoint(), jax.random.key(0), pool, 3)
    >>> picked.indices.tolist(), [round(float(v), 3) for v in picked.scores]
    ([0, 2, 1], [4.0, 3.5, 0.5])
    """

    first: str = "max"
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Only if it starts anywhere."""
        return self.first == "random"

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse another start."""
        _check_first(self.first)

    def start(self, key: Array, problem: Problem) -> Nearest:
        """Nothing is near."""
        return _start(key, problem, self.first)

    def scores(self, state: Nearest, problem: Problem) -> Array:  # noqa: ARG002
        """Distances."""
        return jnp.sqrt(state.squared)

    def update(self, state: Nearest, problem: Problem, i: Array, slot: Array) -> Nearest:
        """Distances to one more."""
        return _update(state, problem, i, slot)


@dataclass(frozen=True)
class LCMD(Greedy):
    """Largest cluster, maximum distance: representative and diverse at once.

    Every sample belongs to the nearest picked one. Of the cluster with the largest sum of squared
    distances the farthest sample is picked. The best selector of a large benchmark on tabular
    regression. The score is that sum (for the first pick the squared norm). O(N k s).

    References
    ----------
    Holzmuller et al. 2023, "A framework and benchmark for deep batch active learning for
    regression".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[9.0], [8.0], [0.0], [1.0], [2.0], [1.0]])
    >>> pool = selection.Pool(kernel=selection.linear(x))
    >>> selection.select(selection.LCMD(), jax.random.key(0), pool, 3).indices.tolist()
    [0, 2, 4]
    """

    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    def start(self, key: Array, problem: Problem) -> Nearest:
        """Nothing is near."""
        return _start(key, problem, "max")

    def scores(self, state: Nearest, problem: Problem) -> Array:
        """Size of the cluster of each sample."""
        mine = jnp.where(problem.candidates, state.squared, 0)
        # Without any pick there is one cluster all the same.
        local = segment_sum(mine, state.slot, num_segments=max(problem.slots, 1))
        sizes = problem.rows.sum(local[None])
        return jnp.where(state.step == 0, state.squared, sizes[state.slot])

    def ties(self, state: Nearest, problem: Problem) -> Array:  # noqa: ARG002
        """Within a cluster the farthest."""
        return state.squared

    def update(self, state: Nearest, problem: Problem, i: Array, slot: Array) -> Nearest:
        """One more center."""
        return _update(state, problem, i, slot)


@dataclass(frozen=True)
class KMeansPP(Greedy):
    """Draw in proportion to the squared distance to the nearest picked sample.

    The seeding of k-means: less than `FarthestPoint` led by outliers. The first pick is uniform.
    The score is the logarithm of the squared distance plus Gumbel noise. O(N k s).

    References
    ----------
    Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding"; Ash et al.
    2020, "Deep batch active learning by diverse, uncertain gradient lower bounds" (BADGE).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(kernel=selection.linear(jnp.array([[0.0], [0.0], [0.0], [5.0]])))
    >>> 3 in selection.select(selection.KMeansPP(), jax.random.key(0), pool, 2).indices
    True
    """

    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def start(self, key: Array, problem: Problem) -> Nearest:
        """All are alike."""
        state = _start(key, problem, "max")
        return state._replace(squared=jnp.ones_like(state.squared))

    def scores(self, state: Nearest, problem: Problem) -> Array:
        """A draw in proportion to the squared distance."""
        return drawn(state.squared, state.key, state.step, problem)

    def update(self, state: Nearest, problem: Problem, i: Array, slot: Array) -> Nearest:
        """Distances to one more."""
        return _update(state, problem, i, slot)
