"""Where tasks run: here, in processes of this machine, on SLURM, on Dask.

An engine is a function ``engine(orders) -> outcomes``, which come as they are ready. A task that
raises is an outcome; so is one whose worker died. Nothing is ever forked: JAX has threads.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from studies._errors import StudyError
from studies._folder import sweep_away, task_folder
from studies.sweeps._signs import sign_file
from studies.sweeps._work import Order, Outcome, attempt, record_failure

Engine = Callable[[Sequence[Order]], Iterator[Outcome]]

_BARREN = 2  # pools that may break before any task starts


def serial(orders: Sequence[Order]) -> Iterator[Outcome]:
    """One after another, in this process."""
    for order in orders:
        yield attempt(order)


def processes(workers: int, devices: Sequence[str] = ()) -> Engine:
    """Spawned processes of this machine; with `devices`, each sees one of them.

    A process that dies takes the pool with it, and nobody knows which task was to blame. The
    tasks that were under way are then run again one at a time, so that only the guilty one is
    lost.
    """

    def engine(orders: Sequence[Order]) -> Iterator[Outcome]:
        waiting, suspects, barren = list(orders), list[Order](), 0
        while waiting or suspects:
            alone = bool(suspects)
            batch = suspects if alone else waiting
            finished: set[str] = set()
            for outcome in _pool(batch, 1 if alone else workers, devices):
                finished.add(outcome.id)
                yield outcome
            left = [order for order in batch if order.id not in finished]
            begun = [order for order in left if _started(order)]
            untouched = [order for order in left if order not in begun]
            barren = 0 if finished or begun or not left else barren + 1
            if barren >= _BARREN:
                msg = (
                    "The worker processes die before they start a task; their messages are "
                    "above. Try --executor serial."
                )
                raise StudyError(msg)
            if alone:
                suspects = untouched
                for order in begun:
                    yield lost(order, "its process died twice")
            else:
                waiting, suspects = untouched, begun
                for order in begun:
                    _sign(order).unlink(missing_ok=True)

    return engine


def _pool(orders: Sequence[Order], workers: int, devices: Sequence[str]) -> Iterator[Outcome]:
    """Outcomes until all are there or the pool breaks."""
    spawn = multiprocessing.get_context("spawn")
    names = spawn.Queue()
    for device in devices:
        names.put(device)
    count = min(workers, len(orders))
    pool = ProcessPoolExecutor(
        count, mp_context=spawn, initializer=_begin, initargs=(names, bool(devices))
    )
    try:
        for future in as_completed([pool.submit(attempt_and_forget, order) for order in orders]):
            try:
                yield future.result()
            except BrokenProcessPool:
                continue
    except BaseException:
        _end(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        names.close()


def _end(pool: ProcessPoolExecutor) -> None:
    """Do not wait for hours of training when the user said stop."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _begin(names: Any, choose: bool) -> None:
    """Start a worker: it ends with its parent, and sees one device if there is a choice."""
    if choose:
        os.environ["CUDA_VISIBLE_DEVICES"] = names.get()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)


def attempt_and_forget(order: Order) -> Outcome:
    """Free what was compiled: the next task is another program."""
    import jax

    try:
        return attempt(order)
    finally:
        jax.clear_caches()


def on_executor(executor: Executor) -> Engine:
    """Any executor of `concurrent.futures`, which looks after its workers itself."""

    def engine(orders: Sequence[Order]) -> Iterator[Outcome]:
        with executor as pool:
            by_future = {pool.submit(attempt_and_forget, order): order for order in orders}
            try:
                yield from _outcomes(by_future)
            except BaseException:
                for future in by_future:
                    future.cancel()
                raise

    return engine


def _outcomes(by_future: Mapping[Future[Outcome], Order]) -> Iterator[Outcome]:
    for future in as_completed(by_future):
        order = by_future[future]
        try:
            yield future.result()
        except Exception as error:
            yield lost(order, f"{type(error).__name__}: {error}")


def _sign(order: Order) -> Path:
    return sign_file(order.folder, order.id, order.attempt)


def _started(order: Order) -> bool:
    return _sign(order).exists()


def lost(order: Order, why: str) -> Outcome:
    """Write down a task whose worker died; often there was not enough memory."""
    why = f"the worker was lost ({why}); perhaps it ran out of memory or time"
    record_failure(order, "lost", why)
    _sign(order).unlink(missing_ok=True)
    final = task_folder(order.study, order.folder, order.task)
    sweep_away(final, lambda other: other != order.attempt)
    return Outcome(order.id, order.task.label, "lost", why)


def refuse_unknown(given: Iterable[str], known: Iterable[str], executor: str) -> None:
    """Answer options that an executor does not have."""
    unknown, known = sorted(set(given) - set(known)), sorted(known)
    if unknown:
        has = f"expected {', '.join(known)}" if known else "it has none"
        msg = f"Unknown option {unknown[0]!r} for --executor {executor}; {has}."
        raise StudyError(msg)
