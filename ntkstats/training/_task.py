"""A training task as three pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ntkstats.errors import TrainingError
from ntkstats.typing import Array, Inputs, Params, PyTree


class Task(NamedTuple):
    """What [`run`][ntkstats.training.run] needs to know about a training loop.

    Attributes
    ----------
    init
        ``init(key) -> carry``: one member's training state.
    step
        ``step(carry, i) -> carry``: one update; ``i`` counts the updates applied before it and is
        shared by all members.
    obj
        ``obj(carry)``: what the model's `split` accepts (parameters, variables, ...).
    """

    init: Callable[[Array], PyTree]
    step: Callable[[PyTree, Array], PyTree]
    obj: Callable[[PyTree], Any]


class SupervisedCarry(NamedTuple):
    """Training state of a supervised task.

    Attributes
    ----------
    params
        The parameters.
    opt_state
        The optimiser's state.
    order
        ``(N,)`` order in which this epoch visits the data.
    key
        PRNG key from which every epoch's order is drawn.
    """

    params: Params
    opt_state: optax.OptState
    order: Array
    key: Array


def supervised(
    init: Callable[[Array], Params],
    apply: Callable[[Params, Inputs], Array],
    optimizer: optax.GradientTransformation,
    loss: Callable[[Array, Array], Array],
    x: Inputs,
    y: Array,
    *,
    batch_size: int,
) -> Task:
    """Minibatch training on a fixed data set, shuffled anew every epoch.

    Parameters
    ----------
    init
        ``init(key) -> params``.
    apply
        ``apply(params, x) -> output`` as it is trained.
    optimizer
        Any optax transformation.
    loss
        ``loss(output, y)``: one value a sample, or a scalar; averaged over the batch.
    x, y
        Training data, leaves ``(N, ...)``.
    batch_size
        Samples an update; an epoch drops the ragged rest.

    Returns
    -------
    Task
        Its ``obj`` is the parameters.

    Raises
    ------
    TrainingError
        When the data and the batch size do not fit together.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from ntkstats import training
    >>> x, y = jnp.ones((8, 3)), jnp.ones((8, 1))
    >>> task = training.supervised(
    ...     lambda key: jax.random.normal(key, (3, 1)), lambda params, x: x @ params,
    ...     optax.sgd(0.1), optax.l2_loss, x, y, batch_size=4)
    >>> carry = training.run(task, jax.random.split(jax.random.key(0), 2), steps=50)
    >>> carry.params.shape
    (2, 3, 1)
    >>> bool(jnp.allclose((x @ carry.params).squeeze(-1), 1.0, atol=1e-2))
    True
    """
    x, y = jax.tree.map(jnp.asarray, x), jnp.asarray(y)
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves((x, y))}
    if len(sizes) != 1 or None in sizes:
        message = f"leaves of x and y have leading sizes {sizes}; expected one number of samples."
        raise TrainingError(message)
    n = int(y.shape[0])
    if not 1 <= batch_size <= n:
        message = f"batch_size={batch_size} with {n} samples; expected 1 to {n}."
        raise TrainingError(message)
    batches = n // batch_size

    def start(key: Array) -> SupervisedCarry:
        params_key, order_key = jax.random.split(key)
        params = init(params_key)
        return SupervisedCarry(params, optimizer.init(params), jnp.arange(n), order_key)

    def batch_loss(params: Params, x: Inputs, y: Array) -> Array:
        return jnp.mean(loss(apply(params, x), y))

    def step(carry: SupervisedCarry, i: Array) -> SupervisedCarry:
        params, opt_state, order, key = carry
        # i is shared by all members, so under vmap this stays a branch: one shuffle an epoch.
        order = jax.lax.cond(
            i % batches == 0,
            lambda: jax.random.permutation(jax.random.fold_in(key, i), n),
            lambda: order,
        )
        index = jax.lax.dynamic_slice(order, ((i % batches) * batch_size,), (batch_size,))
        batch = jax.tree.map(lambda leaf: leaf[index], x)
        grads = jax.grad(batch_loss)(params, batch, y[index])
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return SupervisedCarry(optax.apply_updates(params, updates), opt_state, order, key)

    return Task(start, step, lambda carry: carry.params)
