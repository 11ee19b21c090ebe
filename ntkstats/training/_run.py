"""Run a task over an ensemble of seeds as one program, and record on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ntkstats._lanes import map_members, prefers_unrolled, tree_index
from ntkstats.errors import TrainingError
from ntkstats.recording import RecordAt
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
    carry: PyTree | None = None,
    start: int = 0,
    save: Callable[[int, PyTree], None] | None = None,
    save_at: RecordAt | None = None,
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
        Number of updates in all, those before ``start`` included.
    recorder
        A `Recorder` made with ``members=len(keys)``; it is called before the updates it wants to
        see and finished at the end.
    carry, start
        Go on from what an earlier call returned or saved after ``start`` updates, instead of
        from ``task.init``.
    save, save_at
        ``save(step, carry)`` is called at these steps, after the recorder: write a checkpoint
        there, with ``recorder.state()`` if there is a recorder.
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
    _check_start(start, steps, carry, save, save_at)
    carry = _init(task)(keys) if carry is None else carry
    _check_carry(carry, members)
    if unroll is None:
        unroll = prefers_unrolled(task.step, tree_index(carry, 0), 0)
    advance = _stepwise(task) if unroll else _rolled(task)
    done = start
    for stop, due, saved in _stretches(start, steps, recorder, save_at):
        carry = advance(carry, done, stop)
        done = stop
        if progress is not None:
            jax.block_until_ready(carry)
            progress(done, steps)
        if recorder is not None and due:
            recorder(done, task.obj(carry))
        if save is not None and saved:
            save(done, carry)
    if recorder is not None:
        recorder.finish(task.obj(carry), step=steps)
    return carry


def _stretches(
    start: int, steps: int, recorder: Recording | None, save_at: RecordAt | None
) -> Iterator[tuple[int, bool, bool]]:
    """Where to stop on the way to ``steps``, and whether a record and a checkpoint are due."""
    pace = max(1, steps // PROGRESS_CALLS)
    for step in range(start, steps + 1):
        due = recorder is not None and step < steps and recorder.due(step)
        saved = save_at is not None and step > start and save_at.due(step)
        if due or saved or step == steps or (step and step % pace == 0):
            yield step, due, saved


def _check_start(start: int, steps: int, carry: PyTree, save: object, save_at: object) -> None:
    if not 0 <= start <= steps or int(start) != start:
        message = f"start={start!r} with steps={steps}; expected an integer from 0 to {steps}."
        raise TrainingError(message)
    if start and carry is None:
        message = f"start={start} was given without carry=; pass the carry after {start} updates."
        raise TrainingError(message)
    if (save is None) != (save_at is None):
        message = "save= and save_at= belong together; give both: what to call, and when."
        raise TrainingError(message)


def _check_carry(carry: PyTree, members: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != members:
            message = (
                f"carry{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}; expected a "
                f"leading axis of {members}, one entry a key. Pass the carry that run returned."
            )
            raise TrainingError(message)


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
