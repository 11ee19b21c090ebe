"""One thread that does jobs in order, so that the training loop need not wait for the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Background:
    """Runs jobs one after the other on a thread of its own.

    The interpreter waits for the jobs when it exits (`concurrent.futures` sees to that before
    any exit handler runs), so nothing that was handed over is lost.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._pid = os.getpid()

    def submit(self, job: Callable[[], None]) -> None:
        """Do ``job`` after those before it; it must not raise."""
        if os.getpid() != self._pid:  # a fork has no threads but its own
            job()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ntkstats")
        try:
            self._last = self._pool.submit(job)
        except RuntimeError:  # the interpreter is on its way out and starts nothing new
            job()

    def drain(self) -> None:
        """Return when every job is done."""
        last = self._last
        if last is None or os.getpid() != self._pid or self._is_here():
            return
        wait([last])

    def close(self) -> None:
        """Let the thread end once its jobs are done."""
        if self._pool is not None and os.getpid() == self._pid:
            self._pool.shutdown(wait=False)
            self._pool = None

    def _is_here(self) -> bool:
        # The garbage collector may close a recorder from the very thread that writes for it.
        return threading.current_thread().name.startswith("ntkstats")
