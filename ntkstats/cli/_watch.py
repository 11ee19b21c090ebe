"""``watch RUN``: the latest records while the network trains."""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from ntkstats.cli._inspect import progress
from ntkstats.cli._runs import as_data, read
from ntkstats.cli._text import numbers, safe, seconds, table
from ntkstats.errors import RunNotFoundError, StoreError
from ntkstats.recording import RunSummary, is_written, summarise

_ROWS, _MOST = 10, 1000
_CLEAR = "\x1b[{up}A\x1b[J"  # cursor up to where the last table began, and wipe from there


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("watch", help="follow a run while it is recorded")
    parser.add_argument("run", metavar="RUN", help="path of a run, with or without .sqlite")
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="SECONDS", help="default: 1"
    )
    parser.add_argument("--rows", type=_rows, default=_ROWS, help=f"default: {_ROWS}")
    parser.add_argument("--fields", metavar="FIELD", nargs="+", help="default: what fits")
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.set_defaults(command=run)


def _interval(text: str) -> float:
    with suppress(ValueError):
        if 0.01 <= (value := float(text)) < math.inf:
            return value
    msg = f"{text!r} is no number of seconds of at least 0.01"
    raise argparse.ArgumentTypeError(msg)


def _rows(text: str) -> int:
    with suppress(ValueError):
        if 1 <= (value := int(text)) <= _MOST:
            return value
    msg = f"{text!r} is no number of rows from 1 to {_MOST}"
    raise argparse.ArgumentTypeError(msg)


def run(arguments: argparse.Namespace) -> int:
    """Print until the run ends or Ctrl-C; 1 if it ended before it was finished."""
    try:
        follow = _in_place if sys.stdout.isatty() and not arguments.once else _line_wise
        status = follow(arguments)
    except KeyboardInterrupt:
        print()
        return 0
    return 1 if status in ("killed", "interrupted") and not arguments.once else 0


def _look(arguments: argparse.Namespace, rows: int) -> RunSummary | None:
    """The run now; None while its first record is still to come."""
    try:
        found = read(partial(summarise, rows=rows), arguments.run)
    except RunNotFoundError:
        if arguments.once or not is_written(arguments.run):
            raise
        return None
    unknown = [name for name in arguments.fields or () if name not in found.fields]
    if unknown:
        there = ", ".join(scalars(found)) or "none"
        msg = f"the run has no field {', '.join(unknown)}; choose from {there}"
        raise StoreError(msg)
    return found


def _in_place(arguments: argparse.Namespace) -> str:
    shown = 0
    while True:
        found = _look(arguments, arguments.rows)
        width, height = shutil.get_terminal_size()
        text = (
            "waiting for the first record"
            if found is None
            else _page(arguments, found, width, height)
        )
        sys.stdout.write((_CLEAR.format(up=shown) if shown else "") + text + "\n")
        sys.stdout.flush()
        shown = text.count("\n") + 1
        if found is not None and found.attrs["status"] != "running":
            return str(found.attrs["status"])
        time.sleep(arguments.interval)


def _page(arguments: argparse.Namespace, found: RunSummary, width: int, height: int) -> str:
    """Headline and table, cut to the terminal so that every line is one line of it."""
    with as_data(arguments.run):
        names = list(arguments.fields or scalars(found))
        rows = found.rows[-max(1, height - 4) :]
        body = _table(found, names, rows, width)
        return "\n".join(line[: width - 1] for line in [headline(found), *body.split("\n")])


def _line_wise(arguments: argparse.Namespace) -> str:
    """Each record once: for files and pipes."""
    attempt, after = 0, -1
    names: list[str] = []
    while True:
        found = _look(arguments, _MOST if attempt else arguments.rows)
        if found is not None:
            status = str(found.attrs["status"])
            with as_data(arguments.run):
                names = names or list(arguments.fields or scalars(found))
                if arguments.once:
                    print(headline(found), _table(found, names, found.rows, None), sep="\n")
                    return status
                latest = found.attrs["attempts"][-1]
                if not attempt:
                    print(headline(found))
                elif latest["id"] != attempt and latest["from_step"] is not None:
                    # A resumed run writes some of its steps again.
                    after = min(after, latest["from_step"] - 1)
                    print(f"resumed at step {latest['from_step']}")
                attempt = latest["id"]
                for row in found.rows:
                    if row.step > after:
                        print(safe(_line(row, names)))
                        after = row.step
            if status != "running":
                print(headline(found))
                return status
            sys.stdout.flush()
        time.sleep(arguments.interval)


def scalars(found: RunSummary) -> list[str]:
    """Fields that are one number a step, without standard errors."""
    return [name for name in found.last if "stderr" not in name.split("_")]


def headline(found: RunSummary) -> str:
    """Name, status and progress of a run in one line."""
    parts = [f"{found.path.stem}: {found.attrs['status']}"]
    for axis, one in progress(found).items():
        planned = (
            ""
            if one["planned"] is None
            else f" ({one['recorded_of_planned']} of {one['planned']} planned)"
        )
        parts.append(
            f"{one['records']} records{planned}" + ("" if axis == "step" else f" on {axis}")
        )
    failures = len(found.attrs["failures"])
    if failures:
        parts.append(f"{failures} failures")
    return safe(", ".join(parts))


def _table(found: RunSummary, names: Sequence[str], rows: Sequence[Any], width: int | None) -> str:
    """The records as a table with as many fields as fit."""
    created = datetime.fromisoformat(found.attrs["created"]).timestamp()
    head = ("step", "time", *names)
    lines = [
        (str(r.step), seconds(max(0.0, r.wall_time - created)), *(_cell(r, n) for n in names))
        for r in rows
    ]
    widths = [2 + max(map(len, column)) for column in zip(head, *lines, strict=True)]
    ends = list(itertools.accumulate(widths))
    columns = len(head) if width is None else max(1, sum(end - 2 < width for end in ends))
    return table([line[:columns] for line in [head, *lines]], right=range(len(head)))


def _cell(row: Any, name: str) -> str:
    return numbers(row.values[name]) if name in row.values else "-"


def _line(row: Any, names: Sequence[str]) -> str:
    return f"step {row.step}  " + "  ".join(f"{n} {_cell(row, n)}" for n in names)
