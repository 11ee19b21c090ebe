"""``python -m studies.benchmarks NAME``: run a benchmark, write its JSON, render the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from types import ModuleType

from studies.benchmarks import (
    _harness,
    _render,
    attach,
    engine,
    ensemble,
    landscape,
    memory,
    recording,
    scaling,
    selection,
    shares,
    sweep,
)
from studies.benchmarks._rows import Table

# Those with options say so by a function `add_arguments`.
BENCHMARKS: dict[str, ModuleType] = {
    "recording": recording,
    "attach": attach,
    "ensemble": ensemble,
    "memory": memory,
    "engine": engine,
    "shares": shares,
    "scaling": scaling,
    "selection": selection,
    "sweep": sweep,
    "landscape": landscape,
}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; exit status 1 when a bar is missed."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    chosen = {"render": []}.get(asked.name, [asked])
    if asked.name == "all":
        chosen = [parser.parse_args([name]) for name in BENCHMARKS]
    problems = [_problem(options) for options in chosen]
    if any(problems):
        parser.error(" ".join(filter(None, problems)))
    held = True
    for options in chosen:
        print(f"{options.name}: {BENCHMARKS[options.name].QUESTION}", flush=True)
        for kept, table in _tables(options):
            _harness.show(table.rows)
            held = held and all(row.holds for row in table.rows)
            if kept is not None:
                print(_harness.write(kept, table).name, flush=True)
    _render.write_page()
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies.benchmarks", description=__doc__)
    named = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        own = named.add_parser(name, help=(benchmark.__doc__ or "").splitlines()[0])
        if hasattr(benchmark, "add_arguments"):
            benchmark.add_arguments(own)
    named.add_parser("all", help="all of them, one after another")
    named.add_parser("render", help="write the page from the files that are there")
    return parser


def _problem(options: argparse.Namespace) -> str:
    """What is wrong with the options of a benchmark, before any is started."""
    benchmark = BENCHMARKS[options.name]
    problem = benchmark.check(options) if hasattr(benchmark, "check") else ""
    return f"{options.name}: {problem}" if problem else ""


def _tables(options: argparse.Namespace) -> Iterable[tuple[str | None, Table]]:
    """Tables of a benchmark as they are ready, with the names of their files."""
    benchmark = BENCHMARKS[options.name]
    if hasattr(benchmark, "add_arguments"):
        yield from benchmark.run(options)
    else:
        ours, peer = benchmark.COLUMNS
        columns = {"ours": ours, "peer": peer}
        yield options.name, Table(benchmark.run(), columns, benchmark.QUESTION)


if __name__ == "__main__":
    sys.exit(main())
