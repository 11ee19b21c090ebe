"""Random network distillation as it is usually written: the loops that `RND` is measured against.

Both follow ZnNL: a Python loop over seeds and picks, both networks evaluated on the pool at every
pick, the predictor trained on from where it was. They stop training by the same rule as `RND`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkstats.typing import Array, Params

UNTIL = 0.01
MAX_STEPS = 500
CHECK_EVERY = 10
OPTIMIZER = optax.adam(1e-3)


class Functions(NamedTuple):
    """What a loop compiles.

    Attributes
    ----------
    errors
        ``(target, predictor, x) -> (N,)``.
    train
        ``(predictor, opt_state, target, x, weight, limit) -> (predictor, opt_state)``.
    """

    errors: Callable[..., Array]
    train: Callable[..., Any]


def compiled(apply: Callable[[Params, Array], Array]) -> Functions:
    """New compiled functions; nothing that was compiled before is used again."""

    def errors(target: Params, predictor: Params, x: Array) -> Array:
        return jnp.mean((apply(predictor, x) - apply(target, x)) ** 2, axis=-1)

    def train(
        predictor: Params, opt_state: Any, target: Params, x: Array, weight: Array, limit: Array
    ) -> Any:
        goal = apply(target, x)

        def loss(predictor: Params) -> Array:
            return jnp.sum(weight * jnp.mean((apply(predictor, x) - goal) ** 2, axis=-1))

        def one(_: Any, state: Any) -> Any:
            predictor, opt_state = state
            updates, opt_state = OPTIMIZER.update(jax.grad(loss)(predictor), opt_state, predictor)
            return optax.apply_updates(predictor, updates), opt_state

        def block(state: Any) -> Any:
            predictor, opt_state, steps, _ = state
            predictor, opt_state = jax.lax.fori_loop(0, CHECK_EVERY, one, (predictor, opt_state))
            return predictor, opt_state, steps + CHECK_EVERY, loss(predictor)

        state = (predictor, opt_state, 0, jnp.inf)
        state = jax.lax.while_loop(lambda s: (s[2] < MAX_STEPS) & ~(s[3] <= limit), block, state)
        return state[:2]

    return Functions(jax.jit(errors), jax.jit(train))


def select(
    functions: Functions,
    init: Callable[[Array], Params],
    key: Array,
    x: Array,
    k: int,
    *,
    padded: bool,
) -> list[int]:
    """One seed: ``k`` picks from ``x``, on arrays that grow, or on one of size ``k``."""
    target_key, predictor_key = jax.random.split(key)
    target, predictor = init(target_key), init(predictor_key)
    opt_state = OPTIMIZER.init(predictor)
    chosen: list[int] = []
    errors = np.array(functions.errors(target, predictor, x))
    limit = UNTIL * errors.mean()
    for step in range(k):
        errors[chosen] = -np.inf
        chosen.append(int(errors.argmax()))
        if step + 1 == k:
            break
        size = k if padded else len(chosen)
        index = np.zeros(size, int)
        index[: len(chosen)] = chosen
        weight = (np.arange(size) < len(chosen)) / len(chosen)
        predictor, opt_state = functions.train(
            predictor, opt_state, target, x[index], jnp.asarray(weight, jnp.float32), limit
        )
        errors = np.array(functions.errors(target, predictor, x))
    return chosen
