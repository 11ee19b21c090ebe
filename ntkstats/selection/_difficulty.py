"""Scores of difficulty after a little training, with labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from ntkstats.errors import SelectionError
from ntkstats.selection._classes import check_labels
from ntkstats.selection._rnd import ADAM
from ntkstats.selection._types import Greedy, Pool, Problem
from ntkstats.training import supervised
from ntkstats.typing import Array, Inputs, Params

KEEP = ("hard", "easy")


@dataclass(frozen=True)
class _Difficulty(Greedy):
    """What `EL2N` and `GradNorm` share: networks trained on the labelled pool, then a score.

    Parameters
    ----------
    init, apply
        ``init(key) -> params`` and ``apply(params, x) -> logits (N, C)``.
    optimizer
        Any optax transformation.
    steps
        Updates before the score is taken.
    batch_size
        Samples an update; the whole pool if it is smaller.
    members
        Networks whose scores are averaged; single ones are noisy.
    keep
        ``"hard"`` picks the largest scores, ``"easy"`` the smallest.
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, Inputs], Array]
    optimizer: optax.GradientTransformation = ADAM
    steps: int = 0
    batch_size: int = 32
    members: int = 10
    keep: str = "hard"
    needs: ClassVar[tuple[str, ...]] = ("x", "y")
    shards: ClassVar[bool] = False
    labels: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def check(self, pool: Pool, k: int, batch: int) -> None:  # noqa: ARG002
        """Refuse labels that are none, and options that do not exist."""
        check_labels("y", pool.y)
        if self.keep not in KEEP:
            msg = f"keep={self.keep!r}; expected one of {KEEP}."
            raise SelectionError(msg)
        for name, least in (("steps", 0), ("batch_size", 1), ("members", 1)):
            if not getattr(self, name) >= least:
                msg = f"{name}={getattr(self, name)!r}; expected at least {least}."
                raise SelectionError(msg)

    def start(self, key: Array, problem: Problem) -> Array:
        """Train the members and average their scores."""
        x, y = problem.pool.x, jnp.asarray(problem.pool.y)
        task = supervised(
            self.init,
            self.apply,
            self.optimizer,
            optax.softmax_cross_entropy_with_integer_labels,
            x,
            y,
            batch_size=min(self.batch_size, problem.rows.total),
        )

        def member(key: Array) -> Array:
            carry = task.init(key)
            if self.steps:
                carry = jax.lax.fori_loop(0, self.steps, lambda i, c: task.step(c, i), carry)
            return self._measure(task.obj(carry), x, y)

        score = jnp.mean(jax.vmap(member)(jax.random.split(key, self.members)), axis=0)
        return score if self.keep == "hard" else -score

    def scores(self, state: Array, problem: Problem) -> Array:  # noqa: ARG002
        """What was measured once."""
        return state

    def _measure(self, params: Params, x: Inputs, y: Any) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class EL2N(_Difficulty):
    """Length of the error vector, ``|softmax(f(x)) - onehot(y)|``, after a little training.

    Meant for pruning large sets by half. Where little is kept it prefers what cannot be learned
    from little; expect less than random there.

    Parameters
    ----------
    init, apply, optimizer, steps, batch_size, members, keep
        ``init(key) -> params``, ``apply(params, x) -> logits``; ``steps`` updates of
        ``batch_size`` samples; scores averaged over ``members`` networks; ``keep`` the
        ``"hard"`` or the ``"easy"`` samples.

    Raises
    ------
    SelectionError
        The labels are no integers ``(N,)``, or an option is out of range.

    References
    ----------
    Paul et al. 2021, "Deep learning on a data diet".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x, y = jnp.array([[4.0], [3.0], [-5.0], [2.0]]), jnp.array([0, 0, 1, 1])
    >>> score = selection.EL2N(
    ...     lambda key: jnp.array([[1.0, 0.0]]), lambda w, x: x @ w, members=1)
    >>> selection.select(score, jax.random.key(0), selection.Pool(x=x, y=y), 1).indices.tolist()
    [3]
    """

    def _measure(self, params: Params, x: Inputs, y: Any) -> Array:
        logits = self.apply(params, x)
        error = jax.nn.softmax(logits) - jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
        return jnp.linalg.norm(error, axis=-1)


@dataclass(frozen=True)
class GradNorm(_Difficulty):
    """Length of the gradient of a sample's cross-entropy with respect to the parameters (GraNd).

    At initialisation (``steps=0``) it follows the length of the inputs and does not beat random.

    Parameters
    ----------
    init, apply, optimizer, steps, batch_size, members, keep
        As for `EL2N`.

    Raises
    ------
    SelectionError
        As for `EL2N`.

    References
    ----------
    Paul et al. 2021, "Deep learning on a data diet"; Kirsch 2023, arXiv 2303.14753.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x, y = jnp.array([[1.0], [-6.0], [2.0]]), jnp.array([0, 0, 0])
    >>> score = selection.GradNorm(
    ...     lambda key: jnp.zeros((1, 2)), lambda w, x: x @ w, members=1)
    >>> selection.select(score, jax.random.key(0), selection.Pool(x=x, y=y), 1).indices.tolist()
    [1]
    """

    def _measure(self, params: Params, x: Inputs, y: Any) -> Array:
        def norm(sample: Inputs, label: Array) -> Array:
            one = jax.tree.map(lambda leaf: leaf[None], sample)

            def loss(params: Params) -> Array:
                logits = self.apply(params, one)[0]
                return optax.softmax_cross_entropy_with_integer_labels(logits, label)

            squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(jax.grad(loss)(params))]
            return jnp.sqrt(sum(squares[1:], squares[0]))

        return jax.lax.map(lambda pair: norm(*pair), (x, y), batch_size=64)
