"""What a set is worth once networks were trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkstats.errors import SelectionError
from ntkstats.selection._at_init import check_set
from ntkstats.training import supervised
from ntkstats.typing import Array, ArrayLike, Inputs, Params, PyTree

Data = tuple[Inputs, Any]
"""Inputs and targets."""


class TrainedScore(NamedTuple):
    """Test losses after training on sets of one size, for every set and every seed.

    Attributes
    ----------
    size
        Samples of each set.
    final
        ``(sets, seeds)`` test loss at the end of the budget.
    validated
        ``(sets, seeds)`` test loss where the validation loss is smallest; None without
        validation data.
    oracle_min
        ``(sets, seeds)`` smallest test loss along the way. It stops on the test set, which no
        user can: for comparison with literature that reports it.
    metrics
        ``{name: (sets, seeds)}`` further numbers on the test set at the end.
    steps
        ``(evaluations,)`` updates before each evaluation; 0 is the untrained network.
    curve
        ``(sets, seeds, evaluations)`` test loss.
    """

    size: int
    final: Array
    validated: Array | None
    oracle_min: Array
    metrics: dict[str, Array]
    steps: Array
    curve: Array


def score_trained(
    keys: Array,
    init: Callable[[Array], Params],
    apply: Callable[[Params, Inputs], Array],
    optimizer: optax.GradientTransformation,
    loss: Callable[[Array, Array], Array],
    pool: Data,
    sets: ArrayLike,
    *,
    test: Data,
    validation: Data | None = None,
    steps: int,
    evaluations: int = 20,
    batch_size: int | None = None,
    metrics: Mapping[str, Callable[[Array, Array], Array]] | None = None,
) -> TrainedScore:
    """Train on every set with every seed, and test.

    One program: seeds vectorised, sets one after another. Every set sees the same seeds, so
    differences between sets are paired; see `paired_difference`.

    Parameters
    ----------
    keys
        ``(seeds,)`` PRNG keys.
    init, apply
        The network.
    optimizer
        Any optax transformation.
    loss
        ``loss(output, y)``: one value a sample.
    pool
        ``(x, y)`` from which the sets are taken.
    sets
        ``(sets, k)`` indices, or ``(k,)`` for one set: all of one size.
    test, validation
        ``(x, y)`` held out; the validation data choose the step of `validated`.
    steps
        Updates of the fixed budget.
    evaluations
        How often the held-out losses are computed after the untrained network; divides ``steps``.
    batch_size
        Samples an update; by default the whole set.
    metrics
        ``{name: measure(output, y)}`` of the test set at the end.

    Returns
    -------
    TrainedScore
        Every set and every seed, never means only.

    Raises
    ------
    SelectionError
        A set is no set, sizes differ, or ``evaluations`` does not divide ``steps``.
    TrainingError
        The pool and the batch size do not fit together.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from ntkstats import selection
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> score = selection.score_trained(
    ...     jax.random.split(jax.random.key(0), 3), lambda key: jax.random.normal(key, (1, 1)),
    ...     lambda w, x: x @ w, optax.sgd(0.5), optax.l2_loss, (x, 2 * x),
    ...     jnp.array([[0, 19], [9, 10]]), test=(x, 2 * x), steps=20)
    >>> score.final.shape, bool(jnp.all(score.final[0] < score.final[1]))  # the ends teach more
    ((2, 3), True)
    """
    x, y = (jax.tree.map(jnp.asarray, part) for part in pool)
    sets = np.atleast_2d(np.asarray(sets))
    n = jax.tree.leaves(x)[0].shape[0]
    chosen = jnp.stack([check_set(one, n) for one in sets])
    if steps < 1 or evaluations < 1 or steps % evaluations:
        msg = (
            f"steps={steps} with evaluations={evaluations}; expected positive numbers of which the "
            "second divides the first."
        )
        raise SelectionError(msg)
    size = int(chosen.shape[1])
    program = _Program(
        init, apply, optimizer, loss, steps // evaluations, evaluations, batch_size or size
    )
    held = {"test": test} if validation is None else {"test": test, "validation": validation}
    held = jax.tree.map(jnp.asarray, held)
    curves, params = _run(program, keys, x, y, chosen, held)
    curve = curves["test"]
    validated = None
    if validation is not None:
        best = jnp.argmin(_nan_last(curves["validation"]), axis=-1)
        validated = jnp.take_along_axis(curve, best[..., None], axis=-1)[..., 0]
    found = {
        name: jax.jit(jax.vmap(jax.vmap(partial(_metric, apply, measure, held["test"]))))(params)
        for name, measure in (metrics or {}).items()
    }
    at = jnp.arange(evaluations + 1) * (steps // evaluations)
    oracle = jnp.min(_nan_last(curve), axis=-1)
    return TrainedScore(size, curve[..., -1], validated, oracle, found, at, curve)


class _Program(NamedTuple):
    """What is compiled for; hashable."""

    init: Callable[[Array], Params]
    apply: Callable[[Params, Inputs], Array]
    optimizer: optax.GradientTransformation
    loss: Callable[[Array, Array], Array]
    stretch: int
    evaluations: int
    batch_size: int


@partial(jax.jit, static_argnums=0)
def _run(
    program: _Program, keys: Array, x: Inputs, y: PyTree, sets: Array, held: dict[str, Data]
) -> tuple[dict[str, Array], Params]:
    def on_set(chosen: Array) -> tuple[dict[str, Array], Params]:
        part = jax.tree.map(lambda leaf: leaf[chosen], (x, y))
        task = supervised(
            program.init,
            program.apply,
            program.optimizer,
            program.loss,
            *part,
            batch_size=program.batch_size,
        )

        def losses(carry: Any) -> dict[str, Array]:
            params = task.obj(carry)
            return {
                name: jnp.mean(program.loss(program.apply(params, a), b))
                for name, (a, b) in held.items()
            }

        def member(key: Array) -> tuple[dict[str, Array], Params]:
            carry = task.init(key)

            def stretch(carry: Any, part: Array) -> tuple[Any, dict[str, Array]]:
                first = part * program.stretch
                carry = jax.lax.fori_loop(
                    0, program.stretch, lambda i, c: task.step(c, first + i), carry
                )
                return carry, losses(carry)

            end, rest = jax.lax.scan(stretch, carry, jnp.arange(program.evaluations))
            curve = {
                name: jnp.concatenate([value[None], rest[name]])
                for name, value in losses(carry).items()
            }
            return curve, task.obj(end)

        return jax.vmap(member)(keys)

    return jax.lax.map(on_set, sets)


def _metric(apply: Any, measure: Any, data: Data, params: Params) -> Array:
    return jnp.mean(measure(apply(params, data[0]), data[1]))


def _nan_last(values: Array) -> Array:
    """A diverged network never has the smallest loss."""
    return jnp.where(jnp.isnan(values), jnp.inf, values)
