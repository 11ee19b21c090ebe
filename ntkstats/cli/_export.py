"""``export RUN --to FORMAT``: a run as a file for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ntkstats.cli._runs import as_data, read, stem
from ntkstats.cli._text import size
from ntkstats.errors import StoreError
from ntkstats.recording import export, open_run

SUFFIXES = {"netcdf": ".nc", "zarr": ".zarr", "parquet": ".parquet", "csv": ".csv"}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("export", help="write a run as NetCDF, Zarr, Parquet or CSV")
    parser.add_argument("run", metavar="RUN", help="path of a run, with or without .sqlite")
    parser.add_argument("--to", required=True, choices=SUFFIXES, help="format")
    parser.add_argument(
        "--out", metavar="NAME", help="file to write (default: beside the run, with its name)"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and name it."""
    suffix = SUFFIXES[arguments.to]
    name = Path(arguments.out) if arguments.out else stem(arguments.run)
    if name.suffix in SUFFIXES.values() and name.suffix != suffix and arguments.out:
        msg = f"--out {name} does not end in {suffix}, the suffix of {arguments.to}; change one"
        raise StoreError(msg)
    if name.suffix != suffix:
        name = name.with_name(name.name + suffix)
    ds = read(open_run, arguments.run)
    with as_data(arguments.run):
        file = export(ds, name)
    print(f"written  {file} ({size(_bytes(file))})")
    return 0


def _bytes(file: Path) -> int:
    parts = [file] if file.is_file() else [p for p in file.rglob("*") if p.is_file()]
    return sum(part.stat().st_size for part in parts)
