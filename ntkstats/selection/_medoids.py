"""Medoids of k-means clusters in the feature space of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats.errors import SelectionError
from ntkstats.selection._cholesky import resolved, squared_distance
from ntkstats.selection._maxdet import drawn
from ntkstats.selection._types import Pool, Problem, Whole
from ntkstats.typing import Array


class _Clusters(NamedTuple):
    mixture: Array  # (n, slots) each center as a mixture of samples
    squared: Array  # (n, slots) squared distances to the centers
    owner: Array  # (n,)


@dataclass(frozen=True)
class KMedoids(Whole):
    """The samples nearest to the centers of k-means, largest cluster first.

    Lloyd's iterations in the feature space of the kernel from k-means++ seeds; `weights` are the
    shares of the clusters. The score is minus the distance to the center. Samples that were
    selected before are centers that do not move. O(N k s) an iteration.

    Parameters
    ----------
    iterations
        Of Lloyd's algorithm.

    Raises
    ------
    SelectionError
        ``iterations`` is negative.

    References
    ----------
    Lloyd 1982, "Least squares quantization in PCM"; Arthur and Vassilvitskii 2007, "k-means++";
    Dhillon et al. 2004, "Kernel k-means, spectral clustering and normalized cuts".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
    >>> pool = selection.Pool(kernel=selection.linear(x))
    >>> picked = selection.select(selection.KMedoids(), jax.random.key(0), pool, 2)
    >>> int(picked.indices[0]), [round(float(w), 1) for w in picked.weights]
    (1, [0.6, 0.4])
    """

    iterations: int = 20
    needs: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def stochastic(self) -> bool:
        """Yes: the seeds are."""
        return True

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse a negative number."""
        if not self.iterations >= 0:
            msg = f"iterations={self.iterations!r}; expected 0 or more."
            raise SelectionError(msg)

    def choose(
        self, key: Array, problem: Problem, selected: Array
    ) -> tuple[Array, Array, Array | None]:
        """Cluster, then take the medoids."""
        if problem.k == 0:
            return jnp.zeros(0, jnp.int32), jnp.zeros(0), jnp.zeros(0)
        seeds = _seeds(key, problem, selected)
        fixed = jax.nn.one_hot(selected, problem.rows.total, dtype=problem.measure.dtype).T
        mixture = jax.nn.one_hot(seeds, problem.rows.total, dtype=problem.measure.dtype).T

        def iterate(_: Array, mixture: Array) -> Array:
            owner = _assigned(problem, mixture).owner
            members = jax.nn.one_hot(owner, problem.slots, dtype=mixture.dtype)
            count = jnp.sum(members, axis=0)
            # A cluster that lost all members keeps its center.
            moved = jnp.where(count > 0, members / jnp.maximum(count, 1), mixture)
            return moved.at[:, : problem.before].set(fixed)

        mixture = jax.lax.fori_loop(0, self.iterations, iterate, mixture)
        return _medoids(problem, _assigned(problem, mixture))


def _seeds(key: Array, problem: Problem, selected: Array) -> Array:
    """``(slots,)`` what was selected, and k-means++ draws from the candidates."""
    kernel, rows, before = problem.pool.kernel, problem.rows, problem.before

    def body(slot: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        seeds, squared, free = carry
        noisy = jnp.where(free, drawn(squared, key, slot, problem), -jnp.inf)
        i, _ = rows.best(noisy)
        if before:
            i = jnp.where(slot < before, selected[jnp.minimum(slot, before - 1)], i)
        new = squared_distance(kernel, rows, i, kernel.column(kernel.anchor(i, rows)))
        squared = jnp.where(slot == 0, new, jnp.minimum(squared, new))
        return seeds.at[slot].set(i), squared, free & ~rows.owns(i)

    start = (
        jnp.zeros(problem.slots, jnp.int32),
        jnp.ones_like(kernel.diagonal()),
        problem.candidates,
    )
    return jax.lax.fori_loop(0, problem.slots, body, start)[0]


def _assigned(problem: Problem, mixture: Array) -> _Clusters:
    kernel, rows = problem.pool.kernel, problem.rows
    cross = kernel.times(mixture, rows)
    norms = jnp.sum(mixture * cross, axis=0)
    total = kernel.diagonal()[:, None] + norms
    squared = resolved(total - 2 * cross, total)
    return _Clusters(mixture, squared, jnp.argmin(squared, axis=1))


def _medoids(problem: Problem, clusters: _Clusters) -> tuple[Array, Array, Array]:
    """Serve the clusters in turn; one without free members takes what is farthest from all."""
    rows, before = problem.rows, problem.before
    members = jax.nn.one_hot(clusters.owner, problem.slots, dtype=problem.measure.dtype)
    share = problem.measure @ members
    order = before + jnp.argsort(-share[before:])
    nearest = jnp.min(clusters.squared, axis=1)

    def body(step: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        chosen, scores, free = carry
        j = order[step]
        distance = jnp.sqrt(clusters.squared[:, j])
        mine = free & (clusters.owner == j)
        near, _ = rows.best(jnp.where(mine, -distance, -jnp.inf))
        far, _ = rows.best(jnp.where(free, nearest, -jnp.inf))
        i = jnp.where(jnp.any(mine), near, far)
        return chosen.at[step].set(i), scores.at[step].set(-distance[i]), free & ~rows.owns(i)

    start = (
        jnp.zeros(problem.k, jnp.int32),
        jnp.zeros(problem.k, nearest.dtype),
        problem.candidates,
    )
    chosen, scores, _ = jax.lax.fori_loop(0, problem.k, body, start)
    weights = share[order]
    return chosen, scores, weights / jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)
