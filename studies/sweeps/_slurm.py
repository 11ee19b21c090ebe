"""Tasks as one SLURM job array, through submitit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ntkstats.errors import DependencyError
from studies._errors import StudyError
from studies.sweeps._engines import Engine, attempt_and_forget, lost
from studies.sweeps._work import Order, Outcome

_LOOK = 2.0  # seconds between two looks at the jobs; submitit asks SLURM once a minute


def on_slurm(workers: int | None, options: Mapping[str, str], folder: Path) -> Engine:
    """Engine of ``--executor slurm``.

    Parameters
    ----------
    workers
        How many jobs of the array may run at once.
    options
        ``cluster=local`` runs the same jobs as processes of this machine; everything else goes
        to submitit: ``timeout_min``, ``gpus_per_node``, ``mem_gb``, ``slurm_partition``, ...
    folder
        For scripts, pickles and logs of the jobs; all nodes have to see it.

    Raises
    ------
    DependencyError
        submitit is not installed.
    StudyError
        There is no SLURM here, or an option is unknown to submitit.
    """
    try:
        import submitit
    except ImportError as error:
        msg = f'--executor slurm needs submitit ({error}); pip install "ntkstats[sweep]"'
        raise DependencyError(msg) from error
    asked = {key: _number(text) for key, text in options.items()}
    cluster = str(asked.pop("cluster", "slurm"))
    if workers is not None and cluster == "slurm":
        asked.setdefault("slurm_array_parallelism", workers)
    try:
        inner = submitit.AutoExecutor(folder=folder / "%j", cluster=cluster)
        inner.update_parameters(**asked)
    except (RuntimeError, NameError, ValueError, AssertionError) as error:
        msg = f"submitit does not take this: {error} (--executor slurm --option KEY=VALUE ...)"
        raise StudyError(msg) from error
    return _array(inner)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _array(executor: Any) -> Engine:
    """Hand everything in as one array, look after it, and cancel it when the user says stop.

    submitit's executors and jobs are those of `concurrent.futures` in all but `as_completed`.
    """

    def engine(orders: Sequence[Order]) -> Iterator[Outcome]:
        with executor.batch():
            jobs = [executor.submit(attempt_and_forget, order) for order in orders]
        waiting = list(zip(jobs, orders, strict=True))
        try:
            while waiting:
                ready = [pair for pair in waiting if pair[0].done()]
                waiting = [pair for pair in waiting if pair not in ready]
                yield from (_outcome(job, order) for job, order in ready)
                if not ready:
                    time.sleep(_LOOK)
        except BaseException:
            for job, _ in waiting:
                job.cancel(check=False)
            raise

    return engine


def _outcome(job: Any, order: Order) -> Outcome:
    try:
        outcome: Outcome = job.result()
    except Exception as error:  # submitit tells a lost job by errors of several kinds
        last = str(error).strip().splitlines() or [""]
        return lost(order, f"job {job.job_id}, {type(error).__name__}: {last[0]}")
    return outcome
