"""``python -m studies sweep NAME --grid FIELD=VALUE,VALUE ...``."""

from __future__ import annotations

import argparse
import re
import sys
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studies._errors import StudyError
from studies._settings import describe, parse, read
from studies._study import Study, study_named
from studies.sweeps._board import screen_to
from studies.sweeps._choose import EXECUTORS
from studies.sweeps._report import report_sweep
from studies.sweeps._run import Tally, run_sweep
from studies.sweeps._sweep import sweep

INTERRUPTED = 130  # what a shell gives for Ctrl-C
SOME_FAILED = 1


def add_sweep(commands: Any) -> None:
    """Add the command to those of ``python -m studies``."""
    parser = commands.add_parser(
        "sweep", help="run a study over a grid of settings, then tabulate and draw it"
    )
    parser.add_argument("name", metavar="NAME", help="a study, see `list`")
    parser.add_argument(
        "--grid",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE,VALUE",
        help="fields to vary; values that hold commas go in parentheses: channels=(8,16),(16,32)",
    )
    parser.add_argument("--seeds", type=int, help="seeds of every point, together on the device")
    parser.add_argument(
        "--set", dest="settings", nargs="+", action="extend", default=[], metavar="KEY=VALUE"
    )
    parser.add_argument("--executor", choices=EXECUTORS, default="serial")
    parser.add_argument("--workers", type=int, help="tasks at once")
    parser.add_argument(
        "--option",
        dest="options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="of the executor: devices=0,1 (process), scheduler=tcp://... (dask), "
        "timeout_min=60 gpus_per_node=1 (slurm)",
    )
    parser.add_argument("--out", type=Path, help="folder (default: runs/NAME/sweep-HASH)")
    parser.add_argument("--skip-failed", action="store_true", help="do not try failed tasks again")
    parser.add_argument("--extend", action="store_true", help="add points to the sweep in --out")
    parser.set_defaults(command=_sweep)


def parse_grid(config: type, words: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Read ``field=value,value`` words by the types of the fields.

    Raises
    ------
    StudyError
        A word is not ``FIELD=VALUES``, a field is given twice, or a value does not fit. Unknown
        fields are left to `sweep`.
    """
    hints = typing.get_type_hints(config)
    found: dict[str, tuple[Any, ...]] = {}
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals:
            msg = f"Got --grid {word!r}; expected FIELD=VALUE,VALUE."
            raise StudyError(msg)
        if name in found:
            msg = f"Field {name!r} was given twice; give it once, with all values."
            raise StudyError(msg)
        # commas outside of parentheses
        parts = [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]
        kind = hints.get(name, str)
        try:
            found[name] = tuple(read(part.strip(), kind) for part in parts)
        except ValueError:
            each = f"values that are {describe(kind)}"
            msg = f"--grid {name}={text!r} does not fit; expected {each}."
            raise StudyError(msg) from None
    return found


def _sweep(arguments: argparse.Namespace) -> int:
    study = study_named(arguments.name)
    made = sweep(
        study,
        parse_grid(study.config, arguments.grid),
        base=parse(study.config, arguments.settings),
        seeds=arguments.seeds,
    )
    folder = (arguments.out or made.default_folder()).absolute()
    screen = screen_to(sys.stderr)
    try:
        tally = run_sweep(
            made,
            folder,
            screen,
            executor=arguments.executor,
            workers=arguments.workers,
            options=_options(arguments.options),
            skip_failed=arguments.skip_failed,
            extend=arguments.extend,
        )
    except KeyboardInterrupt:
        screen.say(f"Interrupted. Finished tasks are kept in {folder}; the same command goes on.")
        return INTERRUPTED
    print(f"\n{summary(tally)}")
    if tally.ran + tally.kept:
        show_report(study, folder)
    return SOME_FAILED if tally.failed or tally.skipped else 0


def show_report(study: Study, folder: Path) -> None:
    """Make the report of a sweep and say where it is."""
    found = report_sweep(folder, study)
    print(f"\n{found.text}\n")
    for path in found.files:
        print(f"written  {path}")
    print(f"runs     {folder}")


def summary(tally: Tally) -> str:
    """Say what became of the tasks."""
    parts = [f"{tally.ran} tasks ran", f"{tally.kept} had been finished before"]
    parts += [f"{len(tally.failed)} failed"] if tally.failed else []
    parts += [f"{tally.skipped} failed before and were skipped"] if tally.skipped else []
    lines = [", ".join(parts) + "."]
    lines += [f"  {o.label} ({o.id}): {o.why}" for o in tally.failed]
    lines += ["  The same command tries them again."] if tally.failed else []
    return "\n".join(lines)


def _options(words: Iterable[str]) -> dict[str, str]:
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in found:
            msg = f"Got --option {word!r}; expected KEY=VALUE, each key once."
            raise StudyError(msg)
        found[key] = value
    return found
