"""Facts about the device that JAX computes on."""

from __future__ import annotations

import os
from pathlib import Path

import jax

# Where a container or a batch job is told how much memory it may use (control groups 2 and 1).
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def device_kind() -> str:
    """The default device in words, e.g. ``"cpu"`` or ``"NVIDIA H200"``."""
    return jax.local_devices()[0].device_kind


def device_bytes() -> int:
    """Memory of the default device in bytes (on CPU, what this process may use)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return host_bytes()


def host_bytes() -> int:
    """Memory of the host in bytes, as far as this process may use it."""
    return min([_machine_bytes(), *_limits()])


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return 8 * 2**30


def _limits() -> list[int]:
    """Limits that are set, in bytes."""
    limits = []
    for path in map(Path, _LIMITS):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return limits
