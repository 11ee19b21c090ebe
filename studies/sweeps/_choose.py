"""Engines by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from studies._errors import StudyError
from studies.sweeps._engines import Engine, processes, refuse_unknown, serial

EXECUTORS = ("serial", "process", "slurm", "dask")


def engine_named(
    name: str, folder: Path, workers: int | None, options: Mapping[str, str]
) -> Engine:
    """Make the engine of ``--executor NAME``.

    Raises
    ------
    StudyError
        It is unknown, or does not take these workers or options.
    DependencyError
        It needs a package that is not installed.
    """
    if workers is not None and workers < 1:
        msg = f"workers={workers}; expected at least 1."
        raise StudyError(msg)
    if name == "serial":
        refuse_unknown(options, (), name)
        if workers not in (None, 1):
            msg = f"--executor serial has one worker, not {workers}; use --executor process."
            raise StudyError(msg)
        return serial
    if name == "process":
        refuse_unknown(options, ("devices",), name)
        devices = [d for d in options.get("devices", "").split(",") if d]
        # each training uses several threads
        usual = len(devices) or max(1, (os.cpu_count() or 2) // 2)
        if devices and (workers or usual) > len(devices):
            msg = f"{workers} workers for {len(devices)} devices; give each its own."
            raise StudyError(msg)
        return processes(workers or usual, devices)
    if name == "slurm":
        from studies.sweeps._slurm import on_slurm

        return on_slurm(workers, options, folder / "slurm")
    if name == "dask":
        from studies.sweeps._dask import on_dask

        return on_dask(workers, options)
    msg = f"Unknown executor {name!r}; expected one of {', '.join(EXECUTORS)}."
    raise StudyError(msg)
