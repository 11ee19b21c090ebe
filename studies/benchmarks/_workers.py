"""Start a worker process, give it a network, ask it for runs within a time limit."""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from studies.benchmarks._networks import Network

ROOT = Path(__file__).parents[2]
MEMORY_LIMIT = 8 * 2**30
"""Bytes of resident memory at which a worker is ended, for the sake of what else runs here."""

_WATCH_SECONDS = 0.2


class WorkerError(RuntimeError):
    """A worker answered with an error or died."""


class WorkerLimitError(WorkerError):
    """A worker took too long or too much memory and was ended; the message says which."""


class WorkerProcess:
    """A worker in a process of its own; use as a context manager.

    Parameters
    ----------
    python
        Interpreter of the environment that holds the package.
    package
        ``"ntkstats"``, ``"neural-tangents"`` or ``"parts"``.
    limit
        Seconds for everything up to the first kernel, imports and compilation included; then
        seconds of every answer.

    Raises
    ------
    WorkerError
        From every method: the worker reported an error, or ended.
    WorkerLimitError
        From every method: `limit` or `MEMORY_LIMIT` was passed; the process is gone.
    """

    def __init__(self, python: Path | str, package: str, limit: float) -> None:
        self._package: str | None = package
        self._limit = limit
        self._deadline = time.monotonic() + limit
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        self._unread = b""
        # No allocator may grab the whole device; a peer's JAX must not see what is set for ours.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if package == "neural-tangents":
            environment = {k: v for k, v in environment.items() if not k.startswith("JAX_")}
            environment["JAX_PLATFORMS"] = "cpu"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", "studies.benchmarks._worker"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def load(self, network: Network) -> None:
        """Send a network."""
        path = Path(self._folder.name) / "network.npz"
        arrays = {
            **{f"params:{name}": leaf for name, leaf in network.params.items()},
            **{f"constants:{name}": leaf for name, leaf in network.constants.items()},
            "x:": network.x,
        }
        np.savez(path, **arrays)
        self._ask(do="load", kind=network.kind, settings=network.settings, arrays=str(path))

    def compile(self, method: str | int) -> dict[str, Any]:
        """Compile and run once; answers seconds of both (``compile``, ``first``)."""
        answer = self._ask(do="compile", method=method)
        self._deadline = math.inf
        return answer

    def seconds(self, calls: int = 1) -> float:
        """Seconds of one kernel, mean over `calls` in a row."""
        return float(self._ask(do="run", calls=calls)["seconds"])

    def peaks(self) -> dict[str, int]:
        """Bytes above the imports: of the whole process (``whole``), of a run (``run``)."""
        return self._ask(do="memory")

    def kernel(self) -> Any:
        """The kernel, (N C, N C)."""
        path = Path(self._folder.name) / "kernel.npy"
        self._ask(do="save", path=str(path))
        return np.load(path)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def _ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        if self._package is not None:
            command, self._package = {"package": self._package, **command}, None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        deadline = min(self._deadline, time.monotonic() + self._limit)
        try:
            stdin.write(json.dumps(command).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        while b"\n" not in self._unread:
            if not select.select([stdout], [], [], _WATCH_SECONDS)[0]:
                self._watch(deadline)
                continue
            chunk = os.read(stdout.fileno(), 65536)
            if not chunk:
                raise WorkerError(self._last_words())
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _watch(self, deadline: float) -> None:
        """End the process if it takes too long or too much memory."""
        message = ""
        if time.monotonic() > deadline:
            message = f"did not finish in {self._limit:.0f} s"
        elif _resident_bytes(self._process.pid) > MEMORY_LIMIT:
            message = f"needed more than {MEMORY_LIMIT / 2**30:.0f} GiB"
        if message:
            self._process.kill()
            raise WorkerLimitError(message)

    def _last_words(self) -> str:
        """Why the process ended, as far as it said."""
        code = self._process.wait()
        lines = self._log.read_text(errors="replace").strip().splitlines()
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"{ended}: {lines[-1][:300]}" if lines else ended


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
