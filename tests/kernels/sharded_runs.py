"""Run the programs that need several devices or several processes, once for all tests."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds; they take 30 on an idle machine, and several times that on a busy one


class Written(NamedTuple):
    """What one process wrote."""

    report: dict[str, Any]
    arrays: dict[str, np.ndarray]


def on_one_process(factory: pytest.TempPathFactory, which: str, devices: int) -> Written:
    """What `sharded_child` wrote."""

    def run(folder: Path) -> None:
        _run([["tests.kernels.sharded_child", str(folder / "0"), which]], devices, folder)

    return _written(_once(factory, f"child_{which}", run) / "0")


def on_two_processes(factory: pytest.TempPathFactory, which: str) -> list[Written]:
    """What each `sharded_process` wrote."""

    def run(folder: Path) -> None:
        port = str(_free_port())
        module = "tests.kernels.sharded_process"
        commands = [[module, rank, "2", port, str(folder / rank), which] for rank in "01"]
        _run(commands, 2, folder)

    folder = _once(factory, f"processes_{which}", run)
    return [_written(folder / rank) for rank in "01"]


def _once(factory: pytest.TempPathFactory, name: str, run: Callable[[Path], None]) -> Path:
    """A folder that is filled by the first of all test workers that needs it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            run(folder)
    if not (folder / "0.json").exists():
        pytest.fail(f"{name} failed in another test worker")
    return folder


def _run(commands: Sequence[Sequence[str]], devices: int, folder: Path) -> None:
    """Run modules side by side; when one of them fails, or none gets on, all are killed."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    logs = [folder / f"log{k}" for k in range(len(commands))]
    with contextlib.ExitStack() as stack:
        running = []
        for command, log in zip(commands, logs, strict=True):
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=env,
                stdout=stack.enter_context(log.open("w")),
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            running.append(process)
        end = time.monotonic() + PATIENCE
        codes: list[int | None] = [None]
        while None in codes and not any(codes) and time.monotonic() < end:
            time.sleep(0.05)
            codes = [process.poll() for process in running]
    if any(code != 0 for code in codes):
        said = "\n".join(log.read_text()[-3000:] for log in logs)
        pytest.fail(f"exit codes {codes} (None: killed after {PATIENCE} s at most)\n{said}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _written(path: Path) -> Written:
    with np.load(f"{path}.npz") as arrays:
        return Written(json.loads(Path(f"{path}.json").read_text()), dict(arrays))
