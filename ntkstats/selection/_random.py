"""Random samples, all alike or in the proportions of classes: the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

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
from ntkstats.typing import Array


@dataclass(frozen=True)
class Random(Greedy):
    """Uniform without replacement: what every other selector must beat.

    The score is the uniform number that was drawn for a sample.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(x=jnp.zeros((5, 1)))
    >>> picked = selection.select(selection.Random(), jax.random.key(0), pool, 5)
    >>> sorted(picked.indices.tolist())
    [0, 1, 2, 3, 4]
    """

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def start(self, key: Array, problem: Problem) -> Array:
        """One number for each sample."""
        return problem.rows.scatter(jax.random.uniform(key, (problem.rows.total,)))

    def scores(self, state: Array, problem: Problem) -> Array:  # noqa: ARG002
        """The numbers."""
        return state


class _Strata(NamedTuple):
    draw: Array
    quota: Quota


@dataclass(frozen=True)
class Stratified(Greedy):
    """Random within classes, classes in proportion (or equally).

    At every pick the class that is furthest behind its share is served, so every prefix is as
    balanced as whole numbers allow. It uses labels: compare it with others that do. The score is
    by how many samples the class was behind.

    Parameters
    ----------
    balance
        ``"proportional"`` to the candidates of each class, or ``"equal"``.

    Raises
    ------
    SelectionError
        The labels are no integers ``(N,)``, or there is no such balance.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> y = jnp.array([0, 0, 0, 0, 1, 1])
    >>> picked = selection.select(
    ...     selection.Stratified(), jax.random.key(0), selection.Pool(y=y), 3)
    >>> sorted(y[picked.indices].tolist())
    [0, 0, 1]
    """

    balance: str = "proportional"
    needs: ClassVar[tuple[str, ...]] = ("y",)
    labels: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse labels that are none."""
        check_labels("y", pool.y)
        check_balance(self.balance)

    def start(self, key: Array, problem: Problem) -> _Strata:
        """One number for each sample, and the classes' shares."""
        draw = problem.rows.scatter(jax.random.uniform(key, (problem.rows.total,)))
        return _Strata(draw, quota(jnp.asarray(problem.pool.y), problem, self.balance))

    def scores(self, state: _Strata, problem: Problem) -> Array:
        """How far behind the class of each sample is."""
        return deficits(state.quota, problem)

    def ties(self, state: _Strata, problem: Problem) -> Array:  # noqa: ARG002
        """Random within a class."""
        return state.draw

    def update(self, state: _Strata, problem: Problem, i: Array, slot: Array) -> _Strata:  # noqa: ARG002
        """One more of its class."""
        return state._replace(quota=put(state.quota, problem, i))


@dataclass(frozen=True)
class MaxNorm(Greedy):
    """Largest diagonal entry of the kernel, or largest input: size without diversity.

    The gradient-norm score at initialisation and the largest possible trace. It follows the
    length of the inputs and is usually worse than random; a baseline for claims about the trace.

    Parameters
    ----------
    of
        ``"kernel"`` for K(x, x), ``"inputs"`` for the squared norm of the inputs.

    Raises
    ------
    SelectionError
        There is no such ``of``.

    References
    ----------
    Kirsch 2023, "Does 'deep learning on a data diet' reproduce? Overall yes, but GraNd at
    initialization does not".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> pool = selection.Pool(x=jnp.array([[1.0], [-3.0], [2.0]]))
    >>> selection.select(
    ...     selection.MaxNorm(of="inputs"), jax.random.key(0), pool, 2).indices.tolist()
    [1, 2]
    """

    of: str = "kernel"

    @property
    def requires(self) -> tuple[str, ...]:
        """The kernel or the inputs."""
        return ("x",) if self.of == "inputs" else ("kernel",)

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse another name."""
        if self.of not in ("kernel", "inputs"):
            msg = f"of={self.of!r}; expected 'kernel' or 'inputs'."
            raise SelectionError(msg)

    def start(self, key: Array, problem: Problem) -> Array:  # noqa: ARG002
        """The norms."""
        if self.of == "kernel":
            return problem.pool.kernel.diagonal()
        leaves = jax.tree.leaves(problem.pool.x)
        return sum(
            (jnp.sum(leaf.reshape(leaf.shape[0], -1) ** 2, axis=1) for leaf in leaves),
            jnp.zeros(()),
        )

    def scores(self, state: Array, problem: Problem) -> Array:  # noqa: ARG002
        """The norms."""
        return state
