"""``repair RUN``: a run whose process was killed or whose file was damaged."""

from __future__ import annotations

import argparse
from typing import Any

from ntkstats.cli._runs import as_data
from ntkstats.cli._text import safe
from ntkstats.recording import repair


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("repair", help="bring a killed or damaged run into order")
    parser.add_argument("run", metavar="RUN", help="path of a run, with or without .sqlite")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be done (works on a copy)"
    )
    parser.add_argument(
        "--takeover",
        action="store_true",
        help="also remove the lock of a process on another machine; only if you know it is gone",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Repair and tell; 1 if something is lost."""
    with as_data(arguments.run):
        result = repair(arguments.run, dry_run=arguments.dry_run, takeover=arguments.takeover)
    verb = "would" if arguments.dry_run else "done"
    lines = [
        *(f"found  {text}" for text in result.found),
        *(f"{verb:<5}  {text}" for text in result.done),
        *(f"lost   {text}" for text in result.lost),
    ]
    state = "nothing to repair" if not result.found else "repaired"
    if result.found and arguments.dry_run:
        state = "dry run, nothing was changed"
    lines.append(f"{result.path}: {state}, {result.records} records")
    print("\n".join(map(safe, lines)))
    return 1 if result.lost else 0
