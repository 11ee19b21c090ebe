"""Run a program from the host, in its own precision."""

from __future__ import annotations

from ntkstats._compat import x64
from ntkstats.collectors._types import Program, Snapshot
from ntkstats.kernels._precision import to_float64
from ntkstats.typing import Array, PyTree, Record


def run_on_host(program: Program, carry: PyTree, snapshot: Snapshot) -> tuple[PyTree, Record]:
    """One update from the host, compiled once per program and in the program's precision.

    Parameters
    ----------
    program
        From `bind`.
    carry
        From ``program.init`` (through `init_on_host` for float64) or the previous update.
    snapshot
        Concrete arrays.

    Returns
    -------
    carry, record
    """
    if program.precision == "float64":
        with x64():
            params, state = to_float64(snapshot.params), to_float64(snapshot.state)
            extras = to_float64(dict(snapshot.extras))
            return program.jitted(carry, Snapshot(snapshot.step, params, state, extras))
    return program.jitted(carry, snapshot)


def init_on_host(program: Program, key: Array) -> PyTree:
    """``program.init(key)`` in the program's precision."""
    if program.precision == "float64":
        with x64():
            return program.init(key)
    return program.init(key)
