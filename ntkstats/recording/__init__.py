"""Recording while a model trains, and reading what was recorded.

A [`Recorder`][ntkstats.Recorder] measures at the steps of a [`RecordAt`][ntkstats.RecordAt] and
stores every record at once; [`open_run`][ntkstats.open_run] gives it back as an xarray Dataset.
"""

from ntkstats.recording._recorder import Recorder as Recorder
from ntkstats.recording._schedule import RecordAt as RecordAt
from ntkstats.recording.live._estimate import Overhead as Overhead
from ntkstats.recording.live._journal import Report as Report
from ntkstats.recording.mirrors._sinks import CSVSink as CSVSink
from ntkstats.recording.mirrors._sinks import LogSink as LogSink
from ntkstats.recording.mirrors._sinks import Sink as Sink
from ntkstats.recording.mirrors._tensorboard import TensorBoardSink as TensorBoardSink
from ntkstats.recording.mirrors._wandb import WandbSink as WandbSink
from ntkstats.recording.store._compare import open_runs as open_runs
from ntkstats.recording.store._export import export as export
from ntkstats.recording.store._reader import RunInfo as RunInfo
from ntkstats.recording.store._reader import list_runs as list_runs
from ntkstats.recording.store._reader import open_run as open_run
from ntkstats.recording.store._repair import Repair as Repair
from ntkstats.recording.store._repair import repair as repair
from ntkstats.recording.store._summary import RunSummary as RunSummary
from ntkstats.recording.store._summary import is_written as is_written
from ntkstats.recording.store._summary import summarise as summarise

__all__ = [
    "CSVSink",
    "LogSink",
    "Overhead",
    "RecordAt",
    "Recorder",
    "Repair",
    "Report",
    "RunInfo",
    "RunSummary",
    "Sink",
    "TensorBoardSink",
    "WandbSink",
    "export",
    "is_written",
    "list_runs",
    "open_run",
    "open_runs",
    "repair",
    "summarise",
]
