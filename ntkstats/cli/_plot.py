"""``plot RUN...``: a figure of stored runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkstats import plots
from ntkstats.cli._runs import as_data, labels, read, stem
from ntkstats.errors import PlotError
from ntkstats.recording import open_run

PANELS: dict[str, Callable[..., Axes]] = {
    "spectra": plots.spectra,
    "layer_shares": plots.layer_shares,
    "eigenvalue_paths": plots.eigenvalue_paths,
}
"""Kinds that draw one run in one panel."""

FORMATS = ("pdf", "png", "svg")
_WIDTH, _HEIGHT = 4.2, 2.8  # of one panel, in inches


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("plot", help="draw runs: several are overlaid, or side by side")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="one or more runs")
    parser.add_argument("--kind", choices=("dynamics", *PANELS), default="dynamics")
    parser.add_argument(
        "--fields",
        metavar="FIELD",
        nargs="+",
        help="what to draw (default for dynamics: entropy, trace, loss, accuracy)",
    )
    parser.add_argument(
        "--out",
        metavar="NAME",
        help="files to write, .pdf and .png (default: beside the first run); a name with a "
        "suffix gives that format alone",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw, save and name the files."""
    # Nothing is shown, so no display is needed.
    plt.switch_backend("agg")
    names = labels(arguments.runs)
    runs = {name: read(open_run, path) for name, path in zip(names, arguments.runs, strict=True)}
    target, formats = _target(arguments)
    with as_data(", ".join(arguments.runs)):
        figure = draw(runs, arguments.kind, arguments.fields)
        try:
            written = plots.save(figure, target, runs=runs, formats=formats)
        except OSError as error:
            msg = f"cannot write {target}: {error}; give another --out"
            raise PlotError(msg) from error
        finally:
            plt.close(figure)
    for path in written:
        print(f"written  {path}")
    return 0


def draw(runs: Mapping[str, xr.Dataset], kind: str, fields: Sequence[str] | None) -> Figure:
    """Dynamics of all runs in the same panels; the other kinds in one column a run."""
    if kind == "dynamics":
        one = next(iter(runs.values()))
        axes = plots.dynamics(one if len(runs) == 1 else runs, fields)
        return axes[0].get_figure()
    if fields is not None and len(fields) > 1:
        msg = f"--kind {kind} draws one field, got {', '.join(fields)}; give one"
        raise PlotError(msg)
    chosen = {} if fields is None else {"field": fields[0]}
    figure, grid = plt.subplots(
        1,
        len(runs),
        figsize=(_WIDTH * len(runs), _HEIGHT),
        squeeze=False,
        layout="constrained",
    )
    try:
        for ax, (name, ds) in zip(grid[0], runs.items(), strict=True):
            PANELS[kind](ds, ax=ax, **chosen)
            if len(runs) > 1:
                ax.set_title(name, parse_math=False)
    except BaseException:
        plt.close(figure)
        raise
    return figure


def _target(arguments: argparse.Namespace) -> tuple[Path, tuple[str, ...]]:
    if arguments.out is not None:
        out = Path(arguments.out).expanduser()
        kind = out.suffix.removeprefix(".")
        if not out.name or out.is_dir():
            msg = f"--out {arguments.out!r} names a folder; add the name of the figure to it"
            raise PlotError(msg)
        return (out.with_suffix(""), (kind,)) if kind in FORMATS else (out, ("pdf", "png"))
    first = stem(arguments.runs[0])
    others = len(arguments.runs) - 1
    more = f"_and_{others}_more" if others else ""
    return first.with_name(f"{first.name}{more}_{arguments.kind}"), ("pdf", "png")
