"""Peak memory of one call, in a process of its own.

What counts is what a call adds to the resident memory of a process that is ready to run it:
programs compiled, inputs made. Needs Linux, where the high-water mark can be put back.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"


def peak_bytes(prepare: Callable[[], Callable[[], Any]]) -> int:
    """Most bytes of resident memory that one call needs beyond those before it.

    Parameters
    ----------
    prepare
        Makes the call in the new process: a function of a module, or a `functools.partial` of
        one. What it returns is called once; compile in here what must not count.

    Returns
    -------
    int
        High-water mark during the call minus resident memory before it.

    Raises
    ------
    OSError
        If this is not Linux.
    """
    # Spawned: JAX does not survive a fork once it has started.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, prepare).result()


def _measure(prepare: Callable[[], Callable[[], Any]]) -> int:
    call = prepare()
    # What compiling left behind in the allocator would otherwise be used again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text(_RESET_HIGH_WATER_MARK)
    before = _resident("VmRSS")
    jax.block_until_ready(call())
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    """A line of the process's status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        message = f"{_STATUS} has no {name}; expected a Linux process status. Measure on Linux."
        raise OSError(message)
    return 1024 * int(found[1])
