"""``python -m studies list | run NAME | sweep NAME --grid ... | report NAME``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntkstats.errors import NtkStatsError
from studies._errors import StudyError
from studies._folder import default_folder, stored_config
from studies._progress import progress_to
from studies._runner import report_study, run_study
from studies._settings import parse, table
from studies._study import Report, Study, known_studies, study_named
from studies.sweeps._command import add_sweep, show_report
from studies.sweeps._sweep import SWEEP

_INTERRUPTED = 130  # what a shell gives for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except NtkStatsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    lister = commands.add_parser("list", help="list the studies, or the settings of one")
    lister.add_argument("name", nargs="?", metavar="NAME")
    lister.set_defaults(command=_list)

    runner = commands.add_parser("run", help="run a study; finished tasks are kept")
    reporter = commands.add_parser("report", help="make figures and text again from a run")
    for command, function in ((runner, _run), (reporter, _report)):
        command.add_argument("name", metavar="NAME", help="a study, see `list`")
        command.add_argument(
            "--set",
            dest="settings",
            metavar="KEY=VALUE",
            nargs="+",
            action="extend",
            default=[],
            help="change settings, see `list NAME`",
        )
        command.add_argument("--seed", type=int, help="short for --set seed=SEED")
        command.add_argument(
            "--out", type=Path, help="folder of the run (default: runs/NAME/HASH OF THE SETTINGS)"
        )
        command.set_defaults(command=function)
    add_sweep(commands)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        names = known_studies()
        width = max(map(len, names))
        for name in names:
            print(f"{name:<{width}}  {study_named(name).summary}")
        return 0
    study = study_named(arguments.name)
    print(f"{study.name}: {study.summary}\n\nSettings and defaults:\n{table(study.config)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    study = study_named(arguments.name)
    config = _config(study, arguments)
    folder = arguments.out or default_folder(study, config)
    progress = progress_to(sys.stderr)
    try:
        run_study(study, config, folder, progress)
    except KeyboardInterrupt:
        progress.say(f"Interrupted. Finished tasks are kept in {folder}; the same command goes on.")
        return _INTERRUPTED
    _show(report_study(study, config, folder), folder)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    study = study_named(arguments.name)
    if arguments.out is None:
        config = _config(study, arguments)
        folder = default_folder(study, config)
        stored_config(study, folder)
    else:
        if arguments.settings or arguments.seed is not None:
            msg = "--out names a run, which holds its own settings; drop --set and --seed."
            raise StudyError(msg)
        folder = arguments.out
        if (folder / SWEEP).exists():
            show_report(study, folder.absolute())
            return 0
        config = stored_config(study, folder)
    _show(report_study(study, config, folder), folder)
    return 0


def _config(study: Study, arguments: argparse.Namespace) -> Any:
    words = list(arguments.settings)
    if arguments.seed is not None:
        if "seed" not in {f.name for f in dataclasses.fields(study.config)}:
            msg = f"Study {study.name} has no seed; drop --seed."
            raise StudyError(msg)
        words.append(f"seed={arguments.seed}")
    return parse(study.config, words)


def _show(report: Report, folder: Path) -> None:
    print(f"\n{report.text}\n")
    for path in report.files:
        print(f"written  {path}")
    print(f"runs     {folder}")
