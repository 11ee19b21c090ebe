"""Smallest mean variance over the pool: greedy A-optimal design."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from ntkstats.selection import _cholesky as cholesky
from ntkstats.selection._columns import Dense, Features, matmul
from ntkstats.selection._maxdet import refuse_negative
from ntkstats.selection._rows import Rows
from ntkstats.selection._sweep import sum_over_columns
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array


class _State(NamedTuple):
    pivots: cholesky.Pivots
    gained: Array  # (n,) mean over y of R(x, y)^2
    noise: Array


@dataclass(frozen=True)
class MeanVariance(Greedy):
    """Pick the sample that lowers the mean variance over the pool the most.

    With R the kernel that is left, picking x lowers the mean variance by
    ``mean_y R(x, y)^2 / (R(x, x) + noise)``, which is the score: the A-optimal (or V-optimal)
    design, active learning Cohn; BAIT for linear models. Unlike `MaxDet` it asks what a sample
    says about others, so outliers are worth little. O(N k (s + k)) after O(N s^2) with features,
    O(N^2 k) with a dense kernel.

    Parameters
    ----------
    noise
        Observation variance, in units of the mean diagonal.

    Raises
    ------
    SelectionError
        ``noise`` is negative.

    References
    ----------
    Cohn et al. 1996, "Active learning with statistical models"; Ash et al. 2021, "Gone fishing:
    neural active learning with Fisher embeddings".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[9.0, 0.0], [0.0, 5.0], [0.0, 5.0], [0.0, 5.0], [0.0, 5.0]])
    >>> pool = selection.Pool(kernel=selection.linear(x))
    >>> selection.select(selection.MeanVariance(), jax.random.key(0), pool, 2).indices.tolist()
    [1, 0]
    """

    noise: float = 1e-3
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse a negative noise."""
        refuse_negative("noise", self.noise)

    def start(self, key: Array, problem: Problem) -> _State:  # noqa: ARG002
        """Nothing is known."""
        kernel = problem.pool.kernel
        pivots = cholesky.start(kernel, problem.slots)
        noise = self.noise * problem.rows.sum(problem.measure * pivots.left)
        return _State(pivots, mean_squares(kernel, problem.measure, problem.rows), noise)

    def scores(self, state: _State, problem: Problem) -> Array:
        """The drop of the mean variance."""
        left = cholesky.resolved(state.pivots.left, problem.pool.kernel.diagonal())
        return jnp.where(left > 0, state.gained / (jnp.where(left > 0, left, 1) + state.noise), 0)

    def ties(self, state: _State, problem: Problem) -> Array:  # noqa: ARG002
        """Distance to what was picked."""
        return state.pivots.nearest

    def update(self, state: _State, problem: Problem, i: Array, slot: Array) -> _State:
        """``R <- R - r r^T / (r_i + noise)``, and the mean squares with it."""
        kernel, rows, measure = problem.pool.kernel, problem.rows, problem.measure
        before = state.pivots
        pivots, left = cholesky.condition(before, kernel, rows, i, slot, state.noise)
        weighted = measure * left
        inner = rows.sum(matmul(before.factor, weighted)[None])
        spread = kernel.times(weighted, rows) - matmul(inner, before.factor)
        pivot = rows.take(left, i) + state.noise
        # What the factorisation did not resolve changed nothing; neither must this.
        changed = rows.max(jnp.abs(pivots.factor[slot])) > 0
        inverse = jnp.where(changed, 1 / jnp.where(changed, pivot, 1), 0)
        gained = (
            state.gained
            - 2 * inverse * left * spread
            + inverse**2 * left**2 * rows.sum(weighted * left)
        )
        return state._replace(pivots=pivots, gained=jnp.maximum(gained, 0))


def mean_squares(kernel: Any, measure: Array, rows: Rows) -> Array:
    """``(n,)`` mean over y of K(x, y)^2; without N x N for features."""
    if isinstance(kernel, Features):
        second = matmul((kernel.phi * measure[:, None]).T, kernel.phi)
        second = rows.sum(second[None])
        return jnp.sum(matmul(kernel.phi, second) * kernel.phi, axis=1)
    if isinstance(kernel, Dense):
        everyone = rows.gather(measure)[: kernel.matrix.shape[1]]
        return matmul(kernel.matrix**2, everyone)
    return sum_over_columns(kernel, rows, lambda column, weight: weight * column**2, measure)
