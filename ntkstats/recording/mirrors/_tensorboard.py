"""A mirror for TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntkstats.recording.mirrors._optional import optional


class TensorBoardSink:
    """Writes the scalars of each record to a TensorBoard event file.

    Needs the extra ``tensorboard`` (the package tensorboardX, not TensorFlow). One number a
    member is shown as ``name/0``, ``name/1``, ... in one group.

    Parameters
    ----------
    folder
        Log directory of this run, made at the first record: one folder a run. Look at it with
        ``tensorboard --logdir``.

    Raises
    ------
    DependencyError
        tensorboardX is not installed.

    Notes
    -----
    Event files hold float32; the run store keeps the full precision. Each record is on disk when
    `write` returns.

    A resumed run continues in the same folder with a file of its own. Its first record at step s
    marks a restart there, on which TensorBoard drops the points of earlier attempts at and after
    s, just as the run store supersedes them. No point is shown twice, and no file is overwritten.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser()
        self._files = optional(
            "tensorboardX.event_file_writer", user="TensorBoardSink", extra="tensorboard"
        )
        proto = "tensorboardX.proto"
        self._event = optional(f"{proto}.event_pb2", user="TensorBoardSink", extra="tensorboard")
        self._summary = optional(
            f"{proto}.summary_pb2", user="TensorBoardSink", extra="tensorboard"
        )
        self._writer: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values as one event of that step."""
        if self._writer is None:
            self._open(step)
        value = self._summary.Summary.Value
        entries = [value(tag=name, simple_value=number) for name, number in values.items()]
        self._add(step, summary=self._summary.Summary(value=entries))
        self.flush()

    def flush(self) -> None:
        """Wait until everything is on disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the event file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> None:
        """A new event file; if there are others, everything from ``step`` on starts again."""
        self._folder.mkdir(parents=True, exist_ok=True)
        before = len(list(self._folder.glob("*tfevents*")))
        # The names hold whole seconds, and TensorBoard reads files in the order of their names.
        suffix = f".{before:06d}"
        # The package's SummaryWriter writes in a thread: once that dies, of a full disk say, its
        # queue fills up and the training would wait for ever. This writer raises instead.
        self._writer = self._files.EventsWriter(str(self._folder / "events"), suffix)
        if before:
            log = self._event.SessionLog
            self._add(step, session_log=log(status=log.START))

    def _add(self, step: int, **content: Any) -> None:
        self._writer.write_event(self._event.Event(wall_time=time.time(), step=step, **content))
