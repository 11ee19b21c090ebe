"""A study at every point of a grid: run anywhere, resumed, tabulated, compared."""

from studies.sweeps._board import LineScreen as LineScreen
from studies.sweeps._board import screen_to as screen_to
from studies.sweeps._numbers import phases_at as phases_at
from studies.sweeps._numbers import starting_values as starting_values
from studies.sweeps._numbers import trends as trends
from studies.sweeps._parquet import to_parquet as to_parquet
from studies.sweeps._report import compare as compare
from studies.sweeps._report import report_sweep as report_sweep
from studies.sweeps._run import Tally as Tally
from studies.sweeps._run import run_sweep as run_sweep
from studies.sweeps._sweep import Sweep as Sweep
from studies.sweeps._sweep import stored_sweep as stored_sweep
from studies.sweeps._sweep import sweep as sweep
from studies.sweeps._table import table as table
from studies.sweeps._table import tabulate as tabulate

__all__ = [
    "LineScreen",
    "Sweep",
    "Tally",
    "compare",
    "phases_at",
    "report_sweep",
    "run_sweep",
    "screen_to",
    "starting_values",
    "stored_sweep",
    "sweep",
    "table",
    "tabulate",
    "to_parquet",
    "trends",
]
