"""Tasks on a Dask cluster that is already there, or on workers of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ntkstats.errors import DependencyError
from studies._errors import StudyError
from studies.sweeps._engines import Engine, on_executor, refuse_unknown

_SECONDS = 20


def on_dask(workers: int | None, options: Mapping[str, str]) -> Engine:
    """Engine of ``--executor dask``.

    Parameters
    ----------
    workers
        Processes of a cluster on this machine; without meaning if there is a scheduler.
    options
        ``scheduler``: address (``tcp://host:8786``) or path of the scheduler's file.

    Raises
    ------
    DependencyError
        Dask is not installed.
    StudyError
        No scheduler answers.
    """
    refuse_unknown(options, ("scheduler",), "dask")
    try:
        import distributed
    except ImportError as error:
        msg = f'--executor dask needs distributed ({error}); pip install "ntkstats[sweep]"'
        raise DependencyError(msg) from error
    client = _client(distributed, workers, options.get("scheduler"))
    # what dies is given to another worker by the scheduler; tasks are told apart by their folder
    engine = on_executor(client.get_executor(pure=False))

    def closing(orders: Any) -> Any:
        with client:
            yield from engine(orders)

    return closing


def _client(distributed: Any, workers: int | None, scheduler: str | None) -> Any:
    if scheduler is None:
        cluster = distributed.LocalCluster(
            n_workers=workers or max(1, (os.cpu_count() or 2) // 2),
            threads_per_worker=1,  # a training has threads of its own
            dashboard_address=None,
        )
        return distributed.Client(cluster)
    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    try:
        return distributed.Client(**where, timeout=_SECONDS)
    except (OSError, ValueError) as error:
        msg = f"No Dask scheduler answers at {scheduler} ({error}); start `dask scheduler` first."
        raise StudyError(msg) from error
