"""Classes of samples and how far each is behind its share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.ops import segment_sum

from ntkstats._compat import is_tracer
from ntkstats.errors import SelectionError
from ntkstats.selection._types import Problem
from ntkstats.typing import Array

BALANCES = ("proportional", "equal")


class Quota(NamedTuple):
    """Shares of classes and what each has.

    Attributes
    ----------
    codes
        ``(n,)`` class of every local row, 0 to N - 1.
    share
        ``(N,)`` share of each class; sums to one.
    left
        ``(N,)`` candidates of the class that are not picked.
    taken
        ``(N,)`` picks of the class.
    """

    codes: Array
    share: Array
    left: Array
    taken: Array


def check_labels(name: str, labels: Any) -> None:
    """Refuse what is no class for each sample."""
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        msg = (
            f"Pool({name}=...) has shape {labels.shape} and dtype {labels.dtype}; expected one "
            "integer a sample (N,), e.g. y.argmax(-1) for one-hot labels."
        )
        raise SelectionError(msg)


def check_balance(balance: str) -> None:
    """Refuse another word."""
    if balance not in BALANCES:
        msg = f"balance={balance!r}; expected one of {BALANCES}."
        raise SelectionError(msg)


def class_count(labels: Any) -> int | None:
    """How many classes there are, None inside a trace."""
    return None if is_tracer(labels) else int(np.unique(np.asarray(labels)).size)


def quota(labels: Array, problem: Problem, balance: str, usable: Array | None = None) -> Quota:
    """Shares by candidates and what was selected; ``usable`` ``(n,)`` leaves some out (noise)."""
    rows = problem.rows
    everyone = rows.gather(labels)
    # There are at most N classes, however they are numbered.
    _, codes = jnp.unique(everyone, return_inverse=True, size=rows.total)
    local = rows.scatter(codes.reshape(-1))
    usable = jnp.ones_like(problem.candidates) if usable is None else usable
    left = _count(local, problem.candidates & usable, problem)
    size = _count(local, (problem.candidates | problem.known) & usable, problem)
    weight = size if balance == "proportional" else (size > 0).astype(left.dtype)
    share = weight / jnp.maximum(jnp.sum(weight), 1)
    return Quota(local, share, left, jnp.zeros_like(left))


def deficits(state: Quota, problem: Problem) -> Array:  # noqa: ARG001
    """``(n,)`` by how many samples the class of each row is behind, after one more pick."""
    return of_class(state)[state.codes]


def of_class(state: Quota) -> Array:
    """``(N,)`` deficits; minus infinity where nothing is left."""
    due = state.share * (jnp.sum(state.taken) + 1) - state.taken
    return jnp.where(state.left > 0, due, -jnp.inf)


def put(state: Quota, problem: Problem, i: Array) -> Quota:
    """Sample ``i`` was picked."""
    code = problem.rows.take(state.codes, i)
    was = problem.rows.take(problem.candidates.astype(state.left.dtype), i)
    return state._replace(taken=state.taken.at[code].add(1), left=state.left.at[code].add(-was))


def _count(codes: Array, mask: Array, problem: Problem) -> Array:
    ones = mask.astype(problem.measure.dtype)
    local = segment_sum(ones, codes, num_segments=problem.rows.total)
    return problem.rows.sum(local[None])
