"""Runs that already happened, measured from their checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ntkstats._compat import loaded
from ntkstats.checkpoints._files import read
from ntkstats.checkpoints._fill import fill
from ntkstats.checkpoints._progress import lines
from ntkstats.checkpoints._sidecar import Sidecar
from ntkstats.checkpoints._sources import Open, chosen, sources_of
from ntkstats.checkpoints._visit import Scan
from ntkstats.collectors import Collector
from ntkstats.models import Probe
from ntkstats.recording import RecordAt, Report, Sink
from ntkstats.recording.live._visits import Visits
from ntkstats.typing import Array


def scan_checkpoints(
    model: Any,
    checkpoints: Any,
    probes: Probe | Sequence[Probe],
    collectors: Collector | Sequence[Collector],
    path: str | os.PathLike[str],
    *,
    like: Any = None,
    part: str | None = None,
    load: Open | None = None,
    at: RecordAt | None = None,
    key: Array | None = None,
    config: Any = None,
    seed: int | Sequence[int] | None = None,
    members: int | None = None,
    strict: bool = False,
    sinks: Sequence[Sink] = (),
    precision: str | None = None,
    budget_bytes: int | None = None,
    progress: Callable[[int, int | None], None] | bool = False,
) -> Report:
    """Measure the checkpoints of a run that already happened, and store it as if it were recorded.

    Checkpoints are taken one at a time in the order of their steps. A second call with the same
    path goes on where the first one stopped and adds checkpoints that appeared since. One that
    cannot be loaded is stored as a failure, warned about once, and passed over.

    Parameters
    ----------
    model
        A `Model` or anything that [`as_model`][ntkstats.as_model] takes.
    checkpoints
        A folder (of orbax's CheckpointManager, of single orbax checkpoints, or of
        ``.safetensors`` or ``.npz`` files), one such checkpoint, a list of them, ``{step: path}``,
        pairs ``(step, path)``, or objects that the model splits in place of the paths. Steps are
        read from names such as ``checkpoint_1000``, ``step-1000.safetensors`` and
        ``model_000100.npz``. Pairs from a generator are taken one by one, in rising order.
    probes, collectors
        As for [`Recorder`][ntkstats.Recorder].
    path
        File of the run to write.
    like
        What was saved, with any numbers in it: parameters, TrainState, flax nnx or Equinox
        module. The arrays are filled into a copy. By default the model itself if it is a module,
        otherwise the tree of arrays is taken as it is, with dicts and lists for its levels.
    part
        Which part of a checkpoint holds it, levels joined by slashes: ``"params"``, or
        ``"state/params"`` where orbax saved several items. The rest is not read from orbax.
    load
        Your own loader, for other formats: it is given each path (or whatever stands in its
        place; a list of steps will do) and returns what the model splits.
    at
        Which steps to measure; by default all.
    key, config, seed, members, strict, sinks, precision, budget_bytes
        As for [`Recorder`][ntkstats.Recorder].
    progress
        ``progress(done, total)``, called after each checkpoint (total is None for a generator);
        True prints a line to standard error every few seconds.

    Returns
    -------
    Report
        Its ``path`` is that of the run, for [`open_run`][ntkstats.open_run].

    Raises
    ------
    CheckpointError
        No checkpoint can be read, a step cannot be told from a name, or a file may hold a pickle,
        which is never loaded.
    CheckpointMismatchError
        The first checkpoint does not fit ``like``.
    RunMismatchError
        The path holds a run of another model, probe, config or key.
    DependencyError
        orbax or safetensors is needed and not installed.
    NtkStatsError
        As for `Recorder`.

    Notes
    -----
    Collectors that compare with earlier records compare with the checkpoint before. What they
    remember lies in ``NAME.scan.npz`` beside the run, so that a later call can go on; without that
    file, or for a checkpoint older than the last measured one, they are measured again from the
    first checkpoint on.

    Examples
    --------
    >>> import tempfile, jax.numpy as jnp, numpy as np, ntkstats as nts
    >>> folder = tempfile.TemporaryDirectory()
    >>> for step in (0, 50, 100):
    ...     np.savez(f"{folder.name}/model_{step}.npz", w=np.full((3, 2), 1.0 + step, np.float32))
    >>> model = nts.as_model(lambda params, x: x @ params["w"])
    >>> probe, norm = nts.Probe(jnp.eye(3)), nts.collectors.param_norm()
    >>> report = nts.scan_checkpoints(model, folder.name, probe, norm, folder.name + "/run")
    >>> nts.open_run(report.path).step.values
    array([  0,  50, 100])
    >>> folder.cleanup()
    """
    if like is None and _is_module(model):
        like = model

    def open_file(file: Path) -> Any:
        tree = read(file, part)
        return tree if like is None else fill(like, tree, file.name)

    sources = sources_of(checkpoints, open_file, load)
    if at is not None:
        sources = chosen(sources, at)
    visits = Visits.open(
        path,
        model,
        probes,
        collectors,
        at=RecordAt.every(1),
        key=key,
        config=config,
        seed=seed,
        members=members,
        strict=strict,
        sinks=sinks,
        precision=precision,
        budget_bytes=budget_bytes,
    )
    show = lines() if progress is True else progress or _silent
    with visits.recorder:
        Scan(visits, Sidecar.beside(path), bare=like is None and load is None).run(sources, show)
        return visits.finish()


def _silent(done: int, total: int | None) -> None:
    """Show nothing."""


def _is_module(model: Any) -> bool:
    """Whether checkpoints can be filled into the model itself."""
    nnx, equinox = loaded("flax.nnx"), loaded("equinox")
    return (nnx is not None and isinstance(model, nnx.Module)) or (
        equinox is not None and isinstance(model, equinox.Module)
    )
