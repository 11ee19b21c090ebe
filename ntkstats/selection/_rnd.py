"""Random network distillation as a selector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ntkstats.errors import SelectionError
from ntkstats.selection import _cholesky as cholesky
from ntkstats.selection._distil import (
    Buffer,
    combined,
    cosine_distance,
    distil,
    outputs,
    squared_error,
    whitened,
)
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.typing import Array, Inputs, Params, PyTree

ADAM = optax.adam(1e-3)
"""One object for all, since a program is compiled anew for every other optimiser."""

COMBINE = ("mean", "max", "rank")
RELATIVE = ("initial", "absolute")
LOOKAHEAD = ("none", "kernel")
FIRST = ("error", "random")
DISTANCES = ("mse", "cosine")


class RNDState(NamedTuple):
    """State of a selection by `RND`.

    Attributes
    ----------
    goal
        ``(pairs, N, ...)`` outputs of the targets, computed once.
    params, opt_state, fresh
        Predictors, their optimiser, and the predictors at initialisation.
    buffer
        What is selected.
    errors
        ``(n,)`` novelty score of every row.
    limit
        Loss at which training stops.
    pivots
        Look-ahead within a batch; None without.
    x
        Inputs as the networks see them.
    log
        ``{name: (slots + 1,)}`` by the number of samples that were selected.
    """

    goal: Array
    params: Params
    opt_state: PyTree
    fresh: Params
    buffer: Buffer
    errors: Array
    limit: Array
    pivots: cholesky.Pivots | None
    x: Inputs
    log: dict[str, Array]


@dataclass(frozen=True)
class RND(Greedy):
    """Pick the sample on which a predictor network misses a random target network the most.

    Two networks are drawn; the predictor is then trained on the target's outputs at the samples
    that are selected, and the next pick is the sample with the largest error (novelty score). In
    the wide limit the mean squared error is twice the predictive variance of a deep ensemble; see
    `RNDLimit`.

    Everything has a fixed shape, so a whole selection is one program, and ``jax.vmap`` over keys
    is an ensemble. The selected samples lie in a buffer; training runs on its first 8, 16, 32, ...
    entries, as many as are needed.

    Parameters
    ----------
    init
        ``init(key) -> params`` of both networks; they get different keys.
    apply
        ``apply(params, x) -> (N, m)``.
    predictor_init, predictor_apply
        Another network for the predictor (deeper, say); by default that of the target.
    optimizer
        Any optax transformation. Make it once: a new one means a new program.
    pairs
        Pairs of networks that share the selected samples. The relative noise of a score is about
        ``sqrt(2 / (pairs * m))``.
    combine
        ``"mean"`` or ``"max"`` of the pairs' errors, or the mean ``"rank"``.
    until
        Train until the mean error on the selected samples is this small...
    relative_to
        ...as a share of the untrained mean error over the pool (``"initial"``), or as it is
        (``"absolute"``), which depends on the units of the inputs.
    max_steps
        Updates after a pick at most. A predictor that has not learned by then still rates the
        pool; ``aux["learned"]`` says so. One that diverges rates nothing: the picks end, and
        ``count`` says after how many.
    check_every, growth
        Updates before the loss is looked at, and the factor by which they grow after each look.
    restart
        Train from the initial predictor after every pick instead of going on.
    lookahead
        Within a batch of picks: ``"kernel"`` shrinks the errors of samples that the pool's kernel
        correlates with what was just picked; ``"none"`` takes the largest errors, near copies
        among them.
    first
        ``"error"`` takes the largest untrained error, ``"random"`` any sample.
    standardise
        ``"clip5"`` whitens every input by the pool and clips it to [-5, 5] (Burda et al. 2018).
    distance
        ``"mse"`` averages the squared difference over outputs; ``"cosine"`` is one minus the
        cosine, a distance.

    Raises
    ------
    SelectionError
        An option is none of those above, or look-ahead lacks a kernel.

    Notes
    -----
    The log of a selection has, for each pick, the ``steps`` of the training before it, the
    ``loss`` after it, whether it ``learned``, and the ``mean_error`` over the pool.

    References
    ----------
    Burda et al. 2018, "Exploration by random network distillation"; Tovey et al. 2023, "Towards a
    phenomenological understanding of neural networks: data".

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from ntkstats import selection
    >>> init = lambda key: jax.random.normal(key, (2, 64))
    >>> apply = lambda w, x: jnp.tanh(x @ w)
    >>> x = jnp.array([[0.1, 0.0], [2.0, 0.0], [2.0, 0.1], [0.0, 1.0]])
    >>> rnd = selection.RND(init, apply, optimizer=optax.adam(1e-2))
    >>> picked = selection.select(rnd, jax.random.key(0), selection.Pool(x=x), 2)
    >>> picked.indices.tolist(), picked.aux["learned"].tolist()  # not the near copy of sample 1
    ([1, 3], [True, True])
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, Inputs], Array]
    predictor_init: Callable[[Array], Params] | None = None
    predictor_apply: Callable[[Params, Inputs], Array] | None = None
    optimizer: optax.GradientTransformation = ADAM
    pairs: int = 1
    combine: str = "mean"
    until: float = 0.01
    relative_to: str = "initial"
    max_steps: int = 500
    check_every: int = 10
    growth: float = 1.0
    restart: bool = False
    lookahead: str = "kernel"
    first: str = "error"
    standardise: str | None = None
    distance: str = "mse"
    needs: ClassVar[tuple[str, ...]] = ("x",)
    ragged: ClassVar[bool] = True

    @classmethod
    def znnl(cls, init: Callable[[Array], Params], apply: Callable[[Params, Inputs], Array]) -> RND:
        """The settings of ZnNL's example: cycles of 50 x 1.1^c updates to a loss of 0.01.

        Three deviations: picked samples are masked (there a sample can be picked twice), the
        metric is the squared difference (its default is a similarity), and after ten failed
        cycles the pick goes on with ``learned`` False instead of from a new predictor.

        Parameters
        ----------
        init, apply
            The network.

        References
        ----------
        Tovey et al. 2023, "Towards a phenomenological understanding of neural networks: data".

        Examples
        --------
        >>> RND.znnl(lambda key: None, lambda params, x: x).relative_to
        'absolute'
        """
        # 926 is the sum of 50 x 1.1^c for c from 0 to 10.
        return cls(init, apply, relative_to="absolute", max_steps=926, check_every=50, growth=1.1)

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse options that do not exist."""
        for name, allowed in (
            ("combine", COMBINE),
            ("relative_to", RELATIVE),
            ("lookahead", LOOKAHEAD),
            ("first", FIRST),
            ("distance", DISTANCES),
            ("standardise", (None, "clip5")),
        ):
            if getattr(self, name) not in allowed:
                msg = f"{name}={getattr(self, name)!r}; expected one of {allowed}."
                raise SelectionError(msg)
        for name, least in (("pairs", 1), ("max_steps", 1), ("check_every", 1), ("growth", 1)):
            if not getattr(self, name) >= least:
                msg = f"{name}={getattr(self, name)!r}; expected at least {least}."
                raise SelectionError(msg)
        if batch > 1 and self.lookahead == "kernel" and pool.kernel is None:
            msg = (
                f"batch={batch} with lookahead='kernel' and a pool without kernel; give "
                "Pool(kernel=...), the predictor's NTK say, or lookahead='none'."
            )
            raise SelectionError(msg)

    def start(self, key: Array, problem: Problem) -> RNDState:
        """Draw the networks and rate the pool by them."""
        target_apply = self.apply
        target_init, predictor_init = self.init, self.predictor_init or self.init
        # One key each: with a shared one target and predictor could be the same network.
        keys = jax.random.split(key, (3, self.pairs))
        x = whitened(problem) if self.standardise else problem.pool.x
        targets = jax.vmap(target_init)(keys[0])
        goal = outputs(target_apply, targets, x)
        fresh = jax.vmap(predictor_init)(keys[1])
        found = outputs(self._predict, fresh, x)
        slots = problem.slots
        buffer = Buffer(
            jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape[1:]), leaf.dtype), x),
            jnp.zeros((self.pairs, slots, *goal.shape[2:]), goal.dtype),
        )
        untrained = problem.rows.sum((squared_error(found, goal) * problem.measure).T)
        relative = self.relative_to == "initial"
        limit = self.until * (untrained if relative else jnp.ones_like(untrained))
        errors = self._errors(found, goal, problem)
        log = {
            "steps": jnp.zeros(slots + 1, jnp.int32),
            "loss": jnp.full(slots + 1, jnp.nan, goal.dtype),
            "learned": jnp.ones(slots + 1, bool),
            "mean_error": jnp.full(slots + 1, jnp.nan, goal.dtype),
        }
        if self.first == "random" and not problem.before:
            draw = jax.random.uniform(keys[2, 0], (problem.rows.total,), errors.dtype)
            errors = problem.rows.scatter(draw)
        log["mean_error"] = log["mean_error"].at[0].set(problem.rows.sum(problem.measure * errors))
        ahead = problem.batch > 1 and self.lookahead == "kernel"
        pivots = cholesky.start(problem.pool.kernel, slots) if ahead else None
        opt_state = jax.vmap(self.optimizer.init)(fresh)
        return RNDState(goal, fresh, opt_state, fresh, buffer, errors, limit, pivots, x, log)

    def scores(self, state: RNDState, problem: Problem) -> Array:  # noqa: ARG002
        """Novelty scores."""
        return state.errors

    def update(self, state: RNDState, problem: Problem, i: Array, slot: Array) -> RNDState:
        """Put the sample into the buffer; look ahead within a batch."""
        rows, buffer = problem.rows, state.buffer
        row = rows.take(state.x, i)
        x = jax.tree.map(lambda kept, new: kept.at[slot].set(new), buffer.x, row)
        goal = buffer.goal.at[:, slot].set(rows.take(state.goal, i, axis=1))
        state = state._replace(buffer=Buffer(x, goal))
        if state.pivots is None:
            return state
        before = state.pivots
        pivots, left = cholesky.condition(before, problem.pool.kernel, rows, i, slot)
        scale = before.left * rows.take(before.left, i)
        explained = jnp.where(scale > 0, left**2 / jnp.where(scale > 0, scale, 1), 0)
        errors = state.errors * (1 - jnp.clip(explained, 0, 1))
        return state._replace(pivots=pivots, errors=errors)

    def refresh(self, state: RNDState, problem: Problem, filled: Array) -> RNDState:
        """Train the predictors on what is selected, and rate the pool again."""
        params, opt_state = state.params, state.opt_state
        if self.restart:
            params, opt_state = state.fresh, jax.vmap(self.optimizer.init)(state.fresh)
        trained = distil(self, params, opt_state, state.buffer, filled, state.limit)
        errors = self._errors(outputs(self._predict, trained.params, state.x), state.goal, problem)
        mean = problem.rows.sum(problem.measure * errors)
        found = {
            "steps": trained.steps,
            "loss": jnp.mean(trained.loss),
            "learned": jnp.all(trained.loss <= state.limit),
            "mean_error": mean,
        }
        log = {name: state.log[name].at[filled].set(value) for name, value in found.items()}
        return state._replace(
            params=trained.params, opt_state=trained.opt_state, errors=errors, log=log
        )

    def log(self, state: RNDState, problem: Problem) -> dict[str, Array]:
        """Of the training before each pick."""
        first = problem.before
        return {name: value[first : first + problem.k] for name, value in state.log.items()}

    @property
    def _predict(self) -> Callable[[Params, Inputs], Array]:
        return self.predictor_apply or self.apply

    def _errors(self, found: Array, goal: Array, problem: Problem) -> Array:
        """``(n,)`` novelty scores from outputs ``(pairs, n, m)``."""
        measure = squared_error if self.distance == "mse" else cosine_distance
        return combined(self.combine, measure(found, goal), problem.rows)
