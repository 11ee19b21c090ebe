"""Files that say which runs they show."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from ntkstats.errors import PlotError

_FORMATS = ("pdf", "png", "svg")


def save(
    figure: Figure,
    path: str | Path,
    *,
    runs: xr.Dataset | Mapping[str, xr.Dataset] | Iterable[xr.Dataset | str],
    formats: Iterable[str] = ("pdf", "png"),
) -> tuple[Path, ...]:
    """Save a figure, with the runs it shows in the files' metadata and in a small JSON beside it.

    The same figure of the same runs gives the same bytes: nothing holds a time or a path. Files
    of that name are replaced.

    Parameters
    ----------
    figure
        A matplotlib Figure.
    path
        Where to, without suffix; folders are created.
    runs
        What is shown: Datasets from `open_run`, a mapping of them, or run ids.
    formats
        Of ``"pdf"``, ``"png"`` and ``"svg"``.

    Returns
    -------
    tuple of Path
        The images, then ``PATH.runs.json`` with run ids, hashes of their configurations and the
        version of ntkstats.

    Raises
    ------
    PlotError
        No runs were named, one has no id, or a format is unknown.
    """
    wanted = (formats,) if isinstance(formats, str) else tuple(formats)
    unknown = [f for f in wanted if f not in _FORMATS]
    if unknown or not wanted:
        msg = f"formats={wanted!r}; expected some of {', '.join(_FORMATS)}."
        raise PlotError(msg)
    origin = _origin(runs)
    stem = Path(path)
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in wanted:
        target = stem.with_name(f"{stem.name}.{kind}")
        # element ids of an SVG are random without a salt
        with mpl.rc_context({"svg.hashsalt": "ntkstats"}):
            figure.savefig(target, metadata=_metadata(kind, origin))
        written.append(target)
    beside = stem.with_name(f"{stem.name}.runs.json")
    beside.write_text(json.dumps(origin, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return (*written, beside)


def _origin(runs: Any) -> dict[str, Any]:
    if isinstance(runs, (xr.Dataset, str)):
        runs = [runs]
    elif isinstance(runs, Mapping):
        runs = list(runs.values())
    shown = [_identity(run) for run in runs]
    if not shown:
        msg = "runs is empty; pass the Datasets (or run ids) that the figure shows."
        raise PlotError(msg)
    return {"ntkstats": _version(), "runs": [r for group in shown for r in group]}


def _identity(run: xr.Dataset | str) -> list[dict[str, Any]]:
    if isinstance(run, str):
        return [{"run_id": run, "config_hash": None}]
    if not isinstance(run, xr.Dataset):
        msg = f"runs holds a {type(run).__name__}; expected Datasets from open_run, or run ids."
        raise PlotError(msg)
    run_id = run.attrs.get("run_id")
    if not run_id:
        msg = "A Dataset has no attribute 'run_id'; pass the id as a string instead."
        raise PlotError(msg)
    ids = list(run_id) if isinstance(run_id, (list, tuple)) else [run_id]
    return [{"run_id": str(i), "config_hash": _config_hash(run.attrs.get("config"))} for i in ids]


def _config_hash(config: Any) -> str | None:
    if config is None:
        return None
    if isinstance(config, str):
        with contextlib.suppress(ValueError):  # not JSON: hash the text as it is
            config = json.loads(config)
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version() -> str:
    import ntkstats  # at the call: the package imports this room

    return str(getattr(ntkstats, "__version__", "unknown"))


def _metadata(kind: str, origin: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(origin, sort_keys=True)
    program = f"ntkstats {origin['ntkstats']}"
    if kind == "pdf":
        return {"Creator": program, "Keywords": text, "CreationDate": None}
    if kind == "svg":
        return {"Creator": program, "Description": text, "Date": None}
    return {"Software": program, "Description": text}
