"""Selectors of representatives: facility location and kernel herding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.selection._columns import columns_of
from ntkstats.selection._maxdet import refuse_negative
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array


class _Served(NamedTuple):
    similarity: Array  # (n, m)
    best: Array  # (m,)
    weight: Array  # (m,)


@dataclass(frozen=True)
class FacilityLocation(Greedy):
    """Pick the sample that serves the pool best beyond those that are picked.

    Greedy maximisation of ``mean_y max_{s in S} K(s, y)``, which is submodular where K is not
    negative: at least 1 - 1/e of the best. The score is the gain. Similarities below zero count
    as zero. It holds the similarities of all samples with all references: N^2 numbers, or N
    times ``references``.

    Parameters
    ----------
    references
        Serve this many samples, drawn at random, instead of the whole pool.

    Raises
    ------
    SelectionError
        ``references`` is below 1.

    References
    ----------
    Nemhauser et al. 1978, "An analysis of approximations for maximizing submodular set
    functions"; Mirzasoleiman et al. 2020, "Coresets for data-efficient training" (CRAIG).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[1.0, 0.0], [1.1, 0.1], [0.9, 0.0], [0.0, 1.0]])
    >>> pool = selection.Pool(kernel=selection.linear(x))
    >>> picked = selection.select(selection.FacilityLocation(), jax.random.key(0), pool, 2)
    >>> picked.indices.tolist()
    [1, 3]
    """

    references: int | None = None
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Only if references are drawn."""
        return self.references is not None

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse no references."""
        if self.references is not None and not self.references >= 1:
            msg = f"references={self.references!r}; expected at least 1, or None for the pool."
            raise SelectionError(msg)

    def start(self, key: Array, problem: Problem) -> _Served:
        """Nobody is served."""
        rows = problem.rows
        count = min(self.references or rows.total, rows.total)
        weight = rows.gather(problem.measure)
        chosen = jnp.arange(rows.total)
        if count < rows.total:
            # Rows that pad the pool weigh nothing and are drawn last.
            draw = jnp.where(weight > 0, jax.random.uniform(key, (rows.total,)), -1)
            chosen = jax.lax.top_k(draw, count)[1]
        weight = weight[chosen] / jnp.sum(weight[chosen])
        similarity = columns_of(problem.pool.kernel, chosen, rows)
        return _Served(jnp.maximum(similarity, 0), jnp.zeros(count, similarity.dtype), weight)

    def scores(self, state: _Served, problem: Problem) -> Array:  # noqa: ARG002
        """Mean gain over the references."""
        return jnp.sum(jnp.maximum(state.similarity - state.best, 0) * state.weight, axis=1)

    def update(self, state: _Served, problem: Problem, i: Array, slot: Array) -> _Served:  # noqa: ARG002
        """Everybody goes to the best."""
        new = problem.rows.take(state.similarity, i)
        return state._replace(best=jnp.maximum(state.best, new))


class _Herd(NamedTuple):
    mean: Array  # (n,) mean over the pool of K(x, y)
    sum: Array  # (n,) sum over S of K(x, s)
    size: Array
    key: Array


@dataclass(frozen=True)
class KernelHerding(Greedy):
    """Pick what brings the mean of the picked samples closest to that of the pool.

    The score is ``mean_y K(x, y) - sum_{s in S} K(x, s) / (|S| + 1)``: conditional gradient on
    the maximum mean discrepancy, for kernels of constant diagonal; `normalised` makes one.

    Parameters
    ----------
    temperature
        Draw with probability in proportion to ``exp(score / temperature)``, the temperature in
        units of the mean diagonal. 0 takes the largest score.

    Raises
    ------
    SelectionError
        ``temperature`` is negative.

    References
    ----------
    Chen et al. 2010, "Super-samples from kernel herding"; Bach et al. 2012, "On the equivalence
    between herding and conditional gradient algorithms".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    >>> pool = selection.Pool(kernel=selection.normalised(selection.linear(x)))
    >>> selection.select(selection.KernelHerding(), jax.random.key(0), pool, 1).indices.tolist()
    [1]
    """

    temperature: float = 0.0
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Only if it draws."""
        return self.temperature > 0

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse a negative temperature."""
        refuse_negative("temperature", self.temperature)

    def start(self, key: Array, problem: Problem) -> _Herd:
        """The mean embedding of the pool."""
        mean = problem.pool.kernel.times(problem.measure, problem.rows)
        return _Herd(mean, jnp.zeros_like(mean), jnp.zeros((), jnp.int32), key)

    def scores(self, state: _Herd, problem: Problem) -> Array:
        """What is missing of the mean embedding."""
        score = state.mean - state.sum / (state.size + 1)
        if self.temperature == 0:
            return score
        rows, kernel = problem.rows, problem.pool.kernel
        unit = self.temperature * rows.sum(problem.measure * kernel.diagonal())
        key = jax.random.fold_in(state.key, state.size)
        noise = rows.scatter(jax.random.gumbel(key, (rows.total,), score.dtype))
        return score / unit + noise

    def update(self, state: _Herd, problem: Problem, i: Array, slot: Array) -> _Herd:  # noqa: ARG002
        """One more."""
        kernel = problem.pool.kernel
        column = kernel.column(kernel.anchor(i, problem.rows))
        return state._replace(sum=state.sum + column, size=state.size + 1)
