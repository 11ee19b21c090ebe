"""Watching from inside an optimiser: no line of the training loop changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from ntkstats.attach._watch import Watch, Watched
from ntkstats.errors import RecordingError
from ntkstats.typing import Array, Params, PyTree


class WatchingState(NamedTuple):
    """State of the gradient transformation.

    Attributes
    ----------
    n_updates
        Updates so far.
    watched
        The records.
    """

    n_updates: Array
    watched: Watched


def as_optax(
    watch: Watch,
    *,
    updates_per_step: int = 1,
    obj_of: Callable[[Params], Any] | None = None,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A gradient transformation that passes updates on and records the parameters on the way.

    Put it into a chain: ``optax.chain(nts.as_optax(watch), optax.adam(1e-3))``. It works wherever
    the optimiser does: in a TrainState, in ``lax.scan``, under ``vmap`` over seeds.

    Parameters
    ----------
    watch
        From [`watch`][ntkstats.watch].
    updates_per_step
        How many updates the optimiser makes in what the schedule counts as one step
        (reinforcement learning: epochs x minibatches); the first of them records.
    obj_of
        What the model splits, from the parameters that the optimiser sees; by default these.
    key
        As for `Watch.init`.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its state holds the records: ``watch.results(opt_state)``. Keyword arguments of ``update``
        reach the collectors as extras.

    Raises
    ------
    RecordingError
        At ``update``, if it is called without parameters.

    Notes
    -----
    An optimiser sees parameters *before* its update: the final ones are recorded by
    ``recorder.finish``.
    """
    if not isinstance(updates_per_step, int) or updates_per_step < 1:
        message = (
            f"updates_per_step={updates_per_step} was given; expected an integer of 1 or more."
        )
        raise RecordingError(message)

    def init(params: Params) -> WatchingState:
        del params
        return WatchingState(jnp.zeros((), jnp.int32), watch.init(key))

    def update(
        updates: PyTree, state: WatchingState, params: Params | None = None, **extras: Any
    ) -> tuple[PyTree, WatchingState]:
        if params is None:
            message = (
                "The optimiser was updated without parameters; expected them, since they are what "
                "is recorded. Call tx.update(grads, opt_state, params)."
            )
            raise RecordingError(message)
        step, rest = jnp.divmod(state.n_updates, updates_per_step)
        # No schedule has a step below zero.
        step = jnp.where(rest == 0, step, -1)
        obj = params if obj_of is None else obj_of(params)
        watched = watch.measure_if(state.watched, step, obj, **extras)
        return watch.after(watched, updates), WatchingState(state.n_updates + 1, watched)

    return optax.GradientTransformationExtraArgs(init, update)
