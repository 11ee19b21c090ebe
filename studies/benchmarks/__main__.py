"""``python -m studies.benchmarks NAME``: run a benchmark, write its JSON, render the page."""

from __future__ import annotations

import argparse
import sys

from studies.benchmarks import _harness, _render, ensemble, memory, recording

BENCHMARKS = {"recording": recording, "ensemble": ensemble, "memory": memory}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; exit status 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m studies.benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all", "render"])
    chosen = parser.parse_args(arguments).name
    held = True
    if chosen != "render":
        for name in BENCHMARKS if chosen == "all" else (chosen,):
            benchmark = BENCHMARKS[name]
            print(f"{name}: {benchmark.QUESTION}", flush=True)
            rows = benchmark.run()
            _harness.show(rows)
            held = held and all(row.holds for row in rows)
            print(_harness.write(name, benchmark.QUESTION, benchmark.COLUMNS, rows).name)
    _render.write_page()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
