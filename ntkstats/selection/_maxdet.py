"""Largest log-determinant: greedy pivoted Cholesky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.selection import _cholesky as cholesky
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array


class _State(NamedTuple):
    pivots: cholesky.Pivots
    key: Array
    noise: Array
    step: Array


@dataclass(frozen=True)
class MaxDet(Greedy):
    """Pick the sample with the largest variance that the picked ones leave unexplained.

    Greedy maximisation of ``log det(K_S + noise)``: pivoted Cholesky, Gaussian-process variance
    sampling, the D-optimal design. The score is the residual variance; the sum of the logarithms
    of the scores is ``log det K_S``. In the infinite-width limit with one trained layer `RND`
    makes the same picks. O(N k (s + k)) with s the cost of a kernel entry.

    Samples whose variance is explained up to rounding error come last, those farthest from the
    picked ones first, so that a copy is never taken before a distinct sample.

    Parameters
    ----------
    noise
        Observation variance, in units of the mean diagonal. 0 is the plain determinant.
    randomised
        Draw in proportion to the residual variance instead of taking the largest: randomly
        pivoted Cholesky, which follows the density of the pool. Scores are then logarithms of
        the variance plus Gumbel noise.

    Raises
    ------
    SelectionError
        ``noise`` is negative.

    References
    ----------
    Chen et al. 2025, "Randomly pivoted Cholesky"; Holzmuller et al. 2023, "A framework and
    benchmark for deep batch active learning for regression"; Krause et al. 2008, "Near-optimal
    sensor placements in Gaussian processes".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(kernel=selection.linear(jnp.diag(jnp.array([1.0, 3.0, 2.0]))))
    >>> selection.select(selection.MaxDet(), jax.random.key(0), pool, 3).indices.tolist()
    [1, 2, 0]
    """

    noise: float = 0.0
    randomised: bool = False
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Only if it draws."""
        return self.randomised

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse a negative noise."""
        refuse_negative("noise", self.noise)

    def start(self, key: Array, problem: Problem) -> _State:
        """Nothing is known."""
        kernel = problem.pool.kernel
        pivots = cholesky.start(kernel, problem.slots)
        noise = self.noise * problem.rows.sum(problem.measure * pivots.left)
        return _State(pivots, key, noise, jnp.zeros((), jnp.int32))

    def scores(self, state: _State, problem: Problem) -> Array:
        """Residual variances."""
        left = cholesky.resolved(state.pivots.left, problem.pool.kernel.diagonal())
        return drawn(left, state.key, state.step, problem) if self.randomised else left

    def ties(self, state: _State, problem: Problem) -> Array:  # noqa: ARG002
        """Distance to what was picked."""
        return state.pivots.nearest

    def update(self, state: _State, problem: Problem, i: Array, slot: Array) -> _State:
        """One more pivot."""
        kernel, rows = problem.pool.kernel, problem.rows
        pivots, _ = cholesky.condition(state.pivots, kernel, rows, i, slot, state.noise)
        return state._replace(pivots=pivots, step=state.step + 1)


def drawn(weight: Array, key: Array, step: Array, problem: Problem) -> Array:
    """``log weight`` plus Gumbel noise: the largest is a draw in proportion to the weights.

    Rows of weight zero can be drawn only when nothing else is left.
    """
    noise = jax.random.gumbel(jax.random.fold_in(key, step), (problem.rows.total,), weight.dtype)
    smallest = jnp.finfo(weight.dtype).tiny
    logs = jnp.where(weight > 0, jnp.log(jnp.maximum(weight, smallest)), 10 * jnp.log(smallest))
    return logs + problem.rows.scatter(noise)


def refuse_negative(name: str, value: float) -> None:
    """A variance or temperature is not negative."""
    if not value >= 0:
        msg = f"{name}={value!r}; expected a number that is not negative."
        raise SelectionError(msg)
