"""Selectors around selectors: class by class, minibatch by minibatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ops import segment_sum

from ntkstats.errors import SelectionError
from ntkstats.selection._classes import (
    Quota,
    check_balance,
    check_labels,
    of_class,
    put,
    quota,
)
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array, PyTree


class _InTurns(NamedTuple):
    inner: PyTree
    quota: Quota


@dataclass(frozen=True)
class _Around(Greedy):
    """What the wrappers share: everything but the scores is the inner selector's."""

    selector: Greedy

    @property
    def stochastic(self) -> bool:
        """As the selector inside."""
        return self.selector.stochastic

    @property
    def requires(self) -> tuple[str, ...]:
        """What the selector inside needs."""
        return self.selector.requires

    @property
    def shards(self) -> bool:  # type: ignore[override]
        """As the selector inside."""
        return self.selector.shards

    @property
    def ragged(self) -> bool:  # type: ignore[override]
        """As the selector inside."""
        return self.selector.ragged

    @property
    def labels(self) -> bool:  # type: ignore[override]
        """As the selector inside."""
        return self.selector.labels

    def check(self, pool: Pool, k: int, batch: int) -> None:
        """Refuse what picks whole sets; ask the selector inside."""
        if not isinstance(self.selector, Greedy):
            msg = (
                f"{type(self).__name__} was given {self.selector!r}; expected a selector that picks"
                " one sample at a time (a selection.Greedy)."
            )
            raise SelectionError(msg)
        self.selector.check(pool, k, batch)

    def refresh(self, state: PyTree, problem: Problem, filled: Array) -> PyTree:
        """As the selector inside."""
        return state._replace(inner=self.selector.refresh(state.inner, problem, filled))

    def ties(self, state: PyTree, problem: Problem) -> Array | None:
        """As the selector inside."""
        return self.selector.ties(state.inner, problem)

    def log(self, state: PyTree, problem: Problem) -> dict[str, Array]:
        """As the selector inside."""
        return self.selector.log(state.inner, problem)


@dataclass(frozen=True)
class PerClass(_Around):
    """Another selector, class by class.

    At every pick the class that is furthest behind its share is served, by the sample that the
    inner selector rates highest in it. Scores are the inner ones. It uses labels.

    Parameters
    ----------
    selector
        Any selector that picks one sample at a time.
    balance
        ``"equal"`` shares, or ``"proportional"`` to the candidates of each class.

    Raises
    ------
    SelectionError
        The selector picks whole sets, the labels are no integers ``(N,)``, or there is no such
        balance.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x, y = jnp.array([[9.0], [8.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
    >>> selector = selection.PerClass(selection.MaxNorm(of="inputs"))
    >>> selection.select(
    ...     selector, jax.random.key(0), selection.Pool(x=x, y=y), 3).indices.tolist()
    [0, 3, 1]
    """

    balance: str = "equal"

    @property
    def requires(self) -> tuple[str, ...]:
        """Labels, and what the selector inside needs."""
        return ("y", *self.selector.requires)

    @property
    def labels(self) -> bool:  # type: ignore[override]
        """Yes."""
        return True

    def check(self, pool: Pool, k: int, batch: int) -> None:
        """Refuse labels that are none."""
        super().check(pool, k, batch)
        check_labels("y", pool.y)
        check_balance(self.balance)

    def start(self, key: Array, problem: Problem) -> _InTurns:
        """Nothing is picked."""
        inner = self.selector.start(key, problem)
        return _InTurns(inner, quota(jnp.asarray(problem.pool.y), problem, self.balance))

    def scores(self, state: _InTurns, problem: Problem) -> Array:
        """The inner ones of the class whose turn it is."""
        turn = jnp.argmax(of_class(state.quota))
        inner = self.selector.scores(state.inner, problem)
        return jnp.where(state.quota.codes == turn, inner, -jnp.inf)

    def update(self, state: _InTurns, problem: Problem, i: Array, slot: Array) -> _InTurns:
        """One more of its class."""
        inner = self.selector.update(state.inner, problem, i, slot)
        return _InTurns(inner, put(state.quota, problem, i))


class _Minibatches(NamedTuple):
    inner: PyTree
    group: Array  # (n,) minibatch of each row
    free: Array  # (n,)
    current: Array  # () the minibatch that is being picked


@dataclass(frozen=True)
class ByBatch(_Around):
    """Another selector, whole minibatches at a time.

    The pool is cut into random minibatches; the one whose free samples have the largest mean
    inner score is picked as a whole, then the next. What is cheap to load together stays
    together. The last minibatch is cut where k ends. Scores are the inner ones.

    Parameters
    ----------
    selector
        Any selector that picks one sample at a time.
    size
        Samples a minibatch.

    Raises
    ------
    SelectionError
        The selector picks whole sets, or ``size`` is below 1.

    References
    ----------
    Killamsetty et al. 2021, "GRAD-MATCH: gradient matching based data subset selection", for
    selection by minibatch.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(x=jnp.arange(6.0)[:, None])
    >>> selector = selection.ByBatch(selection.MaxNorm(of="inputs"), size=6)
    >>> selection.select(selector, jax.random.key(0), pool, 3).indices.tolist()
    [5, 4, 3]
    """

    size: int = 32

    @property
    def stochastic(self) -> bool:
        """Yes: the minibatches are drawn."""
        return True

    def check(self, pool: Pool, k: int, batch: int) -> None:
        """Refuse empty minibatches."""
        super().check(pool, k, batch)
        if not self.size >= 1:
            msg = f"size={self.size!r}; expected at least 1."
            raise SelectionError(msg)

    def start(self, key: Array, problem: Problem) -> _Minibatches:
        """Cut the pool."""
        rows = problem.rows
        cut_key, inner_key = jax.random.split(key)
        # Rows that only pad the pool (they weigh nothing) come last, in no sample's way.
        real = rows.gather(problem.measure) > 0
        order = jnp.argsort(jnp.where(real, jax.random.uniform(cut_key, (rows.total,)), 2))
        group = jnp.zeros(rows.total, jnp.int32).at[order].set(jnp.arange(rows.total) // self.size)
        return _Minibatches(
            self.selector.start(inner_key, problem),
            rows.scatter(group),
            problem.candidates,
            jnp.asarray(-1),
        )

    def scores(self, state: _Minibatches, problem: Problem) -> Array:
        """The inner ones of the minibatch that is picked or should be next."""
        inner = self.selector.scores(state.inner, problem)
        free = state.free & jnp.isfinite(inner)
        count = -(-problem.rows.total // self.size)

        def total(values: Array) -> Array:
            return problem.rows.sum(segment_sum(values, state.group, num_segments=count)[None])

        members = total(free.astype(inner.dtype))
        mean = total(jnp.where(free, inner, 0)) / jnp.maximum(members, 1)
        best = jnp.argmax(jnp.where(members > 0, mean, -jnp.inf))
        current = jnp.maximum(state.current, 0)
        going_on = (state.current >= 0) & (members[current] > 0)
        return jnp.where(state.group == jnp.where(going_on, current, best), inner, -jnp.inf)

    def update(self, state: _Minibatches, problem: Problem, i: Array, slot: Array) -> _Minibatches:
        """One more of its minibatch."""
        return _Minibatches(
            self.selector.update(state.inner, problem, i, slot),
            state.group,
            state.free & ~problem.rows.owns(i),
            problem.rows.take(state.group, i),
        )
