"""Evenly from every cluster, and the loop that takes more until a model is good enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.errors import SelectionError
from ntkstats.selection._classes import (
    Quota,
    check_balance,
    check_labels,
    deficits,
    put,
    quota,
)
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array, ArrayLike


class _Strides(NamedTuple):
    quota: Quota
    priority: Array  # (n,)


@dataclass(frozen=True)
class ClusterStratified(Greedy):
    """Samples at even strides from every cluster, clusters in proportion.

    Within a cluster the first sample comes first, then the middle one, then the quarters: after
    2^j picks of a cluster of 2^m these are its samples at stride 2^(m - j). The score is by how
    many samples the cluster was behind. Noise (negative cluster numbers) is never picked.

    Parameters
    ----------
    balance
        ``"proportional"`` to the candidates in each cluster, or ``"equal"``.

    Raises
    ------
    SelectionError
        The clusters are no integers ``(N,)``, there is no such balance, or fewer samples than k
        are in clusters.

    References
    ----------
    Sivaraman et al. 2020, "Machine-learned interatomic potentials by active learning: amorphous
    and liquid hafnium dioxide".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(clusters=jnp.array([0, 0, 0, 0, 1, 1, -1]))
    >>> selection.select(
    ...     selection.ClusterStratified(), jax.random.key(0), pool, 3).indices.tolist()
    [0, 4, 2]
    """

    balance: str = "proportional"
    needs: ClassVar[tuple[str, ...]] = ("clusters",)

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse clusters that are none."""
        check_labels("clusters", pool.clusters)
        check_balance(self.balance)

    def start(self, key: Array, problem: Problem) -> _Strides:  # noqa: ARG002
        """Rank every sample within its cluster."""
        rows, clusters = problem.rows, jnp.asarray(problem.pool.clusters)
        usable = clusters >= 0
        state = quota(clusters, problem, self.balance, usable)
        mine = (problem.candidates | problem.known) & usable
        everyone = rows.gather(jnp.where(mine, clusters, -1))
        order = jnp.argsort(everyone, stable=True)
        ordered = everyone[order]
        first = jnp.searchsorted(ordered, ordered, side="left")
        rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]) - first)
        # Number of times two divides the rank: strides of 2^j have at least j.
        halvings = jnp.where(rank == 0, 32, jnp.log2(jnp.maximum(rank & -rank, 1)))
        return _Strides(state, rows.scatter(halvings))

    def scores(self, state: _Strides, problem: Problem) -> Array:
        """How far behind the cluster of each sample is."""
        behind = deficits(state.quota, problem)
        return jnp.where(jnp.asarray(problem.pool.clusters) >= 0, behind, -jnp.inf)

    def ties(self, state: _Strides, problem: Problem) -> Array:  # noqa: ARG002
        """Coarse strides first."""
        return state.priority

    def update(self, state: _Strides, problem: Problem, i: Array, slot: Array) -> _Strides:  # noqa: ARG002
        """One more of its cluster."""
        return state._replace(quota=put(state.quota, problem, i))


class Split(NamedTuple):
    """Training and test samples of a stride.

    Attributes
    ----------
    train, test
        Indices, increasing.
    """

    train: np.ndarray
    test: np.ndarray


def stride_split(clusters: ArrayLike, stride: int, *, key: Array) -> Split:
    """Every ``stride``-th sample of each cluster to train on, those two later to test on.

    A cluster smaller than the stride gives one random sample to train on and another one to test
    on, if it has two. Noise (negative numbers) is left out.

    Parameters
    ----------
    clusters
        ``(N,)`` cluster of each sample, in the order of the trajectory.
    stride
        At least 1. Strides of 1 and 2 leave no sample for the test two later; then the test set
        is that of the samples not trained on (none at stride 1).
    key
        PRNG key for the small clusters.

    Raises
    ------
    SelectionError
        The stride is below 1, or the clusters are no integers ``(N,)``.

    References
    ----------
    Sivaraman et al. 2020, "Machine-learned interatomic potentials by active learning: amorphous
    and liquid hafnium dioxide", for the scheme.

    Examples
    --------
    >>> import jax, numpy as np
    >>> split = stride_split(np.zeros(8, int), 4, key=jax.random.key(0))
    >>> split.train.tolist(), split.test.tolist()
    ([0, 4], [2, 6])
    """
    clusters = np.asarray(clusters)
    check_labels("clusters", clusters)
    if not stride >= 1:
        msg = f"stride={stride!r}; expected an integer of at least 1."
        raise SelectionError(msg)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (2,))).tolist())
    train: list[np.ndarray] = []
    test: list[np.ndarray] = []
    for label in np.unique(clusters[clusters >= 0]):
        members = np.flatnonzero(clusters == label)
        if members.size < stride:
            members = rng.permutation(members)
            train.append(members[:1])
            test.append(members[1:2])
            continue
        kept = members[::stride]
        train.append(kept)
        test.append(members[2::stride] if stride > 2 else np.setdiff1d(members, kept))
    empty = np.zeros(0, int)
    return Split(np.sort(np.concatenate([empty, *train])), np.sort(np.concatenate([empty, *test])))


class Round(NamedTuple):
    """One round of `until_tolerance`.

    Attributes
    ----------
    stride
        Of this round.
    split
        What was trained and tested on.
    error
        What the evaluation gave.
    """

    stride: int
    split: Split
    error: float


class ToleranceRun(NamedTuple):
    """What `until_tolerance` did.

    Attributes
    ----------
    rounds
        In order.
    converged
        Whether the last error is within the tolerance.
    """

    rounds: tuple[Round, ...]
    converged: bool


def until_tolerance(
    evaluate: Callable[[np.ndarray, np.ndarray], float],
    clusters: ArrayLike,
    *,
    tolerance: float,
    strides: Sequence[int],
    key: Array,
    test: ArrayLike | None = None,
    least_rounds: int = 2,
) -> ToleranceRun:
    """Train on ever denser samples of every cluster until the test error is small enough.

    Parameters
    ----------
    evaluate
        ``evaluate(train, test) -> error``: fit on one set of indices, measure on the other. It may
        search its hyperparameters.
    clusters
        ``(N,)`` cluster of each sample, negative for noise.
    tolerance
        Largest error that will do.
    strides
        Strides to try, decreasing.
    key
        PRNG key for small clusters.
    test
        Fixed test indices. By default each round tests on the neighbours of what it trained on,
        which is optimistic; give samples of another trajectory to know.
    least_rounds
        Rounds before it may stop.

    Returns
    -------
    ToleranceRun
        Every round, and whether the last error is within the tolerance.

    Raises
    ------
    SelectionError
        The strides do not decrease, a round has nothing to train or test on, or an error is not
        a number.

    References
    ----------
    Sivaraman et al. 2020, "Machine-learned interatomic potentials by active learning: amorphous
    and liquid hafnium dioxide".

    Examples
    --------
    >>> import jax, numpy as np
    >>> run = until_tolerance(lambda train, test: 1 / len(train), np.zeros(16, int),
    ...     tolerance=0.3, strides=(8, 4, 3), key=jax.random.key(0))
    >>> run.converged, [(r.stride, r.error) for r in run.rounds]
    (True, [(8, 0.5), (4, 0.25)])
    """
    steps = list(strides)
    if not steps or any(b >= a for a, b in pairwise(steps)):
        msg = f"strides={strides!r}; expected at least one, each smaller than the one before."
        raise SelectionError(msg)
    rounds: list[Round] = []
    for stride, round_key in zip(steps, jax.random.split(key, len(steps)), strict=True):
        split = stride_split(clusters, stride, key=round_key)
        if test is not None:
            split = split._replace(test=np.asarray(test))
        if not split.train.size or not split.test.size:
            msg = (
                f"stride {stride} leaves {split.train.size} samples to train and "
                f"{split.test.size} to test on; expected some of both. Give test=, or end the "
                "strides earlier."
            )
            raise SelectionError(msg)
        error = float(evaluate(split.train, split.test))
        if np.isnan(error):
            msg = f"evaluate gave {error} at stride {stride}; expected a number."
            raise SelectionError(msg)
        rounds.append(Round(stride, split, error))
        if error <= tolerance and len(rounds) >= least_rounds:
            break
    return ToleranceRun(tuple(rounds), rounds[-1].error <= tolerance)
