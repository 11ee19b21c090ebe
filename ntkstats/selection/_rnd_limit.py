"""What random network distillation picks in the limit of wide networks, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.selection import _cholesky as cholesky
from ntkstats.selection._columns import matmul
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array


class _State(NamedTuple):
    pivots: cholesky.Pivots  # of the NTK
    direction: Array  # (slots, n) u: what learning the error at a pick adds elsewhere
    covariance: Array  # (slots, n) c: prior covariance of the errors left, before each pick
    chosen: Array  # (slots,)
    variance: Array  # (n,) V
    key: Array
    step: Array


@dataclass(frozen=True)
class RNDLimit(Greedy):
    r"""`RND` with infinitely wide networks, trained until they fit.

    Before training the difference of two wide networks is a Gaussian process with covariance 2 K
    (K the NNGP kernel); training on S takes the NTK's interpolation of it away. The expected
    squared error that is left is ``2 V``,

    ``V(x) = K(x,x) - 2 T(x,S) T_SS^-1 K(S,x) + T(x,S) T_SS^-1 K_SS T_SS^-1 T(S,x)``,

    with T the NTK: the predictive variance of a deep ensemble. Without a prior kernel K is taken
    proportional to T (one trained layer), and the picks are those of `MaxDet`. Every pick costs
    O(N (s + k)). The score is ``2 V`` for each output.

    Parameters
    ----------
    noise_dof
        Multiply V by an independent chi-squared number with this many degrees of freedom, divided
        by them: the noise of networks with that many outputs (times pairs). None for none.

    Raises
    ------
    SelectionError
        ``noise_dof`` is no positive integer.

    References
    ----------
    Lee et al. 2019, "Wide neural networks of any depth evolve as linear models under gradient
    descent"; He et al. 2020, "Bayesian deep ensembles via the neural tangent kernel"; Zanger et
    al. 2026, arXiv 2602.19964, for the equivalence to ensembles.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.5]])
    >>> pool = selection.Pool(kernel=selection.linear(x), prior=selection.linear(x))
    >>> picked = selection.select(selection.RNDLimit(), jax.random.key(0), pool, 2)
    >>> picked.indices.tolist(), [round(float(v), 2) for v in picked.scores]
    ([1, 2], [8.02, 4.49])
    """

    noise_dof: int | None = None
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Only with noise."""
        return self.noise_dof is not None

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse a number of degrees that is none."""
        if self.noise_dof is not None and not (
            isinstance(self.noise_dof, int) and self.noise_dof >= 1
        ):
            msg = f"noise_dof={self.noise_dof!r}; expected a positive integer or None."
            raise SelectionError(msg)

    def start(self, key: Array, problem: Problem) -> _State:
        """The untrained error is 2 K."""
        kernel, slots = problem.pool.kernel, problem.slots
        prior = _prior(problem)
        variance = prior.diagonal()
        empty = jnp.zeros((slots, kernel.n), variance.dtype)
        chosen = jnp.zeros(slots, jnp.int32)
        zero = jnp.zeros((), jnp.int32)
        return _State(cholesky.start(kernel, slots), empty, empty, chosen, variance, key, zero)

    def scores(self, state: _State, problem: Problem) -> Array:
        """``2 V``, with rounding error set to zero."""
        error = 2 * cholesky.resolved(state.variance, _prior(problem).diagonal())
        if self.noise_dof is None:
            return error
        key = jax.random.fold_in(state.key, state.step)
        normal = jax.random.normal(key, (problem.rows.total, self.noise_dof), error.dtype)
        return error * problem.rows.scatter(jnp.mean(normal**2, axis=1))

    def ties(self, state: _State, problem: Problem) -> Array:  # noqa: ARG002
        """Distance to what was picked."""
        return state.pivots.nearest

    def update(self, state: _State, problem: Problem, i: Array, slot: Array) -> _State:
        """Learn the error at sample ``i``: ``e <- e - u e_i``, and its covariance with it."""
        rows = problem.rows
        pivots, left = cholesky.condition(state.pivots, problem.pool.kernel, rows, i, slot)
        pivot = rows.take(left, i)
        limit = cholesky.RESOLUTION * jnp.finfo(left.dtype).eps
        known = pivot <= limit * rows.take(problem.pool.kernel.diagonal(), i)
        u = jnp.where(known, 0, left / jnp.where(known, 1, pivot))
        u = jnp.where(rows.owns(i) & ~known, 1, u)
        r = self._covariance(state, problem, i, slot)
        own = rows.take(r, i)
        variance = jnp.maximum(state.variance - 2 * u * r + u**2 * own, 0)
        return state._replace(
            pivots=pivots,
            direction=state.direction.at[slot].set(u),
            covariance=state.covariance.at[slot].set(r),
            chosen=state.chosen.at[slot].set(i),
            variance=jnp.where(rows.owns(i) & ~known, 0, variance),
            step=state.step + 1,
        )

    def _covariance(self, state: _State, problem: Problem, i: Array, slot: Array) -> Array:
        """``(n,)`` covariance of the errors that are left with the error at ``i``.

        Each pick j changed it by ``- u c_j[i] - c u[i] + u u[i] c_j[i_j]``. All of these are known
        by columns, so a new column costs O(N slots).
        """
        rows, prior = problem.rows, _prior(problem)
        column = prior.column(prior.anchor(i, rows))
        u_i = rows.take(state.direction, i, axis=1)
        c_i = rows.take(state.covariance, i, axis=1)
        # c_j at the sample that was picked then: entry (j, i_j).
        own = rows.take(state.covariance, state.chosen, axis=1)
        own = jnp.diagonal(own)
        used = jnp.arange(own.shape[0]) < slot
        u_i, c_i, own = (jnp.where(used, v, 0) for v in (u_i, c_i, own))
        return (
            column
            - matmul(c_i, state.direction)
            - matmul(u_i, state.covariance)
            + matmul(u_i * own, state.direction)
        )


def _prior(problem: Problem):  # type: ignore[no-untyped-def]
    pool = problem.pool
    return pool.kernel if pool.prior is None else pool.prior
