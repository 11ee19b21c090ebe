"""The parser of the command line, and what becomes of errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ntkstats.cli import _compare, _export, _inspect, _plot, _repair, _watch
from ntkstats.cli._text import safe
from ntkstats.errors import NtkStatsError

OK, FINDING, USAGE = 0, 1, 2
"""Exit codes."""

_INTERRUPTED = 130  # what a shell gives for Ctrl-C


class _Parser(argparse.ArgumentParser):
    """Reports bad usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {message}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Words after the name of the program; by default those of this process.

    Returns
    -------
    int
        0, or 1 for a finding (such as damage that could not be mended), or 2 for bad usage.
    """
    arguments = _parser().parse_args(argv)
    try:
        code = int(arguments.command(arguments))
        sys.stdout.flush()
    except NtkStatsError as error:
        print(f"error: {safe(str(error))}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # whoever reads has seen enough, as in `inspect RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m ntkstats", description="Look after recorded runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (_inspect, _compare, _plot, _export, _repair, _watch):
        module.add(commands)
    return parser
