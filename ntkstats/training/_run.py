"""Run a task over an ensemble of seeds as one program, and record on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ntkstats._lanes import map_members, prefers_unrolled, tree_index
from ntkstats.errors import TrainingError
from ntkstats.training._task import Task
from ntkstats.typing import Array, PyTree

# A rolled stretch is cut so that progress shows at least this often.
PROGRESS_CALLS = 100

Advance = Callable[[PyTree, int, int], PyTree]


class Recording(Protocol):
    """What the loop asks of a `Recorder`, or of something that wraps one."""

    @property
    def members(self) -> int | None:
        """Size of the ensemble it records."""
        ...

    def due(self, step: int) -> bool:
        """Whether a call at that step would record something."""
        ...

    def __call__(self, step: int, obj: Any) -> None:
        """Record the state before the update of that step."""
        ...

    def finish(self, obj: Any, step: int | None = None) -> Any:
        """Record the final state and close."""
        ...


def run(
    task: Task,
    keys: Array,
    steps: int,
    *,
    recorder: Recording | None = None,
    progress: Callable[[int, int], None] | None = None,
    unroll: bool | None = None,
) -> PyTree:
    """Train one member for each key, all in one program.

    Between two records the loop runs on the device. On CPU a task with convolutions is dispatched
    step by step, with its members unrolled into one program (see `ntkstats._lanes`); the numbers
    agree up to rounding.

    Parameters
    ----------
    task
        From [`supervised`][ntkstats.training.supervised], or your own.
    keys
        ``(members,)`` PRNG keys, e.g. ``jax.random.split(jax.random.key(0), 20)``.
    steps
        Number of updates.
    recorder
        A `Recorder` made with ``members=len(keys)``; it is called before the updates it wants to
        see and finished at the end.
    progress
        ``progress(done, total)``, called now and then.
    unroll
        Force (True) or forbid (False) unrolling; None decides by the task and the device.

    Returns
    -------
    PyTree
        Final carry, leaves with a leading member axis.

    Raises
    ------
    TrainingError
        When the arguments do not fit together.
    """
    if steps < 0 or int(steps) != steps:
        message = f"steps={steps!r}, expected a non-negative integer."
        raise TrainingError(message)
    members = _members(keys)
    if recorder is not None and recorder.members != members:
        message = (
            f"{members} keys were given, but the recorder was made with members="
            f"{recorder.members}; expected members={members}."
        )
        raise TrainingError(message)
    carry = _init(task)(keys)
    if unroll is None:
        unroll = prefers_unrolled(task.step, tree_index(carry, 0), 0)
    advance = _stepwise(task) if unroll else _rolled(task)
    done = 0
    for stop, due in _stretches(steps, recorder):
        carry = advance(carry, done, stop)
        done = stop
        if progress is not None:
            jax.block_until_ready(carry)
            progress(done, steps)
        if recorder is not None and due:
            recorder(done, task.obj(carry))
    if recorder is not None:
        recorder.finish(task.obj(carry), step=steps)
    return carry


def _stretches(steps: int, recorder: Recording | None) -> Iterator[tuple[int, bool]]:
    """Where to stop on the way to ``steps``, and whether a record is due there."""
    pace = max(1, steps // PROGRESS_CALLS)
    for step in range(steps + 1):
        due = recorder is not None and step < steps and recorder.due(step)
        if due or step == steps or (step and step % pace == 0):
            yield step, due


@lru_cache(maxsize=16)
def _init(task: Task) -> Callable[[Array], PyTree]:
    return jax.jit(jax.vmap(task.init))


@lru_cache(maxsize=16)
def _rolled(task: Task) -> Advance:
    """All steps of a stretch in one loop on the device, members vectorised.

    Cached, so that running one task again (other seeds, more steps) compiles nothing.
    """

    @jax.jit
    def advance(carry: PyTree, start: Array, stop: Array) -> PyTree:
        def body(i: Array, carry: PyTree) -> PyTree:
            return map_members(task.step, carry, i, in_axes=(0, None), unroll=False)

        return jax.lax.fori_loop(start, stop, body, carry)

    return advance


@lru_cache(maxsize=16)
def _stepwise(task: Task) -> Advance:
    """One dispatch a step, members unrolled; cached likewise."""

    @jax.jit
    def one(carry: PyTree, i: Array) -> PyTree:
        return map_members(task.step, carry, i, in_axes=(0, None), unroll=True)

    def advance(carry: PyTree, start: int, stop: int) -> PyTree:
        for i in range(start, stop):
            carry = one(carry, i)
        return carry

    return advance


def _members(keys: Array) -> int:
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if keys.ndim != (1 if typed else 2) or keys.shape[0] < 1:
        message = (
            f"keys has shape {keys.shape} and dtype {keys.dtype}; expected one PRNG key a member: "
            "jax.random.split(jax.random.key(0), members)."
        )
        raise TrainingError(message)
    return int(keys.shape[0])
