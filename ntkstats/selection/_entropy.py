"""Largest entropy of the picked samples' kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.selection._columns import gram
from ntkstats.selection._types import Greedy, Pool, Problem, Whole
from ntkstats.spectrum import eigenvalues, von_neumann_entropy
from ntkstats.typing import Array


class _Purity(NamedTuple):
    trace: Array
    squares: Array  # |K_S|_F^2
    cross: Array  # (n,) sum over S of K(x, s)^2
    nearest: Array  # (n,) largest squared cosine with a picked sample


@dataclass(frozen=True)
class MaxRenyi2(Greedy):
    r"""Pick the sample after which the Rényi-2 entropy of the picked kernel is largest.

    ``S_2 = 2 ln Tr K_S - ln |K_S|_F^2``, which is the score: exact, at one column a pick and
    without eigenvalues. Of all selectors it reaches the largest entropy; whether that helps is a
    test of the idea that entropy is what matters. The first pick is the largest diagonal entry.

    References
    ----------
    Rényi 1961, "On measures of entropy and information".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[3.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> pool = selection.Pool(kernel=selection.linear(x))
    >>> selection.select(selection.MaxRenyi2(), jax.random.key(0), pool, 2).indices.tolist()
    [0, 2]
    """

    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    def start(self, key: Array, problem: Problem) -> _Purity:  # noqa: ARG002
        """Nothing is picked."""
        zeros = jnp.zeros_like(problem.pool.kernel.diagonal())
        return _Purity(jnp.zeros((), zeros.dtype), jnp.zeros((), zeros.dtype), zeros, zeros)

    def scores(self, state: _Purity, problem: Problem) -> Array:
        """The entropy with each sample added."""
        diagonal = problem.pool.kernel.diagonal()
        trace = state.trace + diagonal
        squares = state.squares + 2 * state.cross + diagonal**2
        fine = (trace > 0) & (squares > 0)
        entropy = 2 * jnp.log(jnp.where(fine, trace, 1)) - jnp.log(jnp.where(fine, squares, 1))
        # One sample alone has no entropy; rounding must not decide which is first.
        return jnp.where((state.trace == 0) | ~fine, 0, entropy)

    def ties(self, state: _Purity, problem: Problem) -> Array:
        """The larger sample, unless it repeats one that is picked."""
        return problem.pool.kernel.diagonal() * (1 - state.nearest)

    def update(self, state: _Purity, problem: Problem, i: Array, slot: Array) -> _Purity:  # noqa: ARG002
        """One more row and column."""
        kernel, rows = problem.pool.kernel, problem.rows
        diagonal = kernel.diagonal()
        own = rows.take(diagonal, i)
        cross = rows.take(state.cross, i)
        column = kernel.column(kernel.anchor(i, rows)) ** 2
        scale = diagonal * own
        cosine = jnp.where(scale > 0, column / jnp.where(scale > 0, scale, 1), 0)
        return _Purity(
            state.trace + own,
            state.squares + 2 * cross + own**2,
            state.cross + column,
            jnp.maximum(state.nearest, jnp.clip(cosine, 0, 1)),
        )


@dataclass(frozen=True)
class MaxEntropy(Whole):
    """The random set of the largest von Neumann entropy among several.

    Parameters
    ----------
    draws
        Number of random sets.

    Raises
    ------
    SelectionError
        ``draws`` is below 1.

    Notes
    -----
    The order of the picks means nothing; every score is the entropy of the set in nats. With
    ``selected=`` the entropy is that of all together.

    References
    ----------
    Tovey et al. 2023, "Towards a phenomenological understanding of neural networks: data", for
    the agent of approximate maximum entropy.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(kernel=selection.linear(jnp.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])))
    >>> picked = selection.select(selection.MaxEntropy(draws=30), jax.random.key(0), pool, 2)
    >>> 3 in picked.indices, round(float(picked.scores[0]), 4)
    (True, 0.6931)
    """

    draws: int = 10
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse no draws."""
        if not self.draws >= 1:
            msg = f"draws={self.draws!r}; expected at least 1."
            raise SelectionError(msg)

    def choose(
        self, key: Array, problem: Problem, selected: Array
    ) -> tuple[Array, Array, Array | None]:
        """Draw, measure, keep the best."""
        kernel, rows, k = problem.pool.kernel, problem.rows, problem.k
        if k == 0:
            return jnp.zeros(0, jnp.int32), jnp.zeros(0), None

        def draw(key: Array) -> tuple[Array, Array]:
            uniform = jax.random.uniform(key, (rows.total,))
            _, chosen = jax.lax.top_k(jnp.where(problem.candidates, uniform, -1), k)
            matrix = gram(kernel, jnp.concatenate([selected, chosen]), rows)
            return chosen, von_neumann_entropy(eigenvalues(matrix, solver="eigh"))

        # One after the other: eigensolvers that run at once can wait for each other for ever.
        sets, entropies = jax.lax.map(draw, jax.random.split(key, self.draws))
        best = jnp.argmax(jnp.where(jnp.isnan(entropies), -jnp.inf, entropies))
        return sets[best], jnp.full(k, entropies[best]), None
