"""A run that is written on request: ``python -m tests.cli.writer_child PATH``.

Each line on stdin is an order, answered on stdout once it is done: ``record`` the next step,
``finish``, or ``hang`` in the middle of a record, to be killed there.
"""

import sys
import time

from ntkstats.recording import RecordAt, Recorder
from ntkstats.recording.store import _store
from tests.recording.helpers import MODEL, PROBE, state, weight_mean, weights

# More than SQLite keeps in memory, so that half a record reaches the file.
LARGE = 150_000


def hang_in_the_middle() -> None:
    """Write the rest of the next record never."""
    whole = _store.encode

    def half(array):
        yield from whole(array)
        if array.size > LARGE:
            print("hanging", flush=True)
            time.sleep(600)

    _store.encode = half


def recorder_of(path: str) -> Recorder:
    """The recorder of this run, new or resumed."""
    # The large field comes first, so that something of the record is missing.
    what = [weights("a_weights", repeat=LARGE), weight_mean()]
    return Recorder(path, MODEL, PROBE, what, at=RecordAt.every(1), resume=True)


def main(path: str) -> None:
    """Obey until the run is finished."""
    recorder = recorder_of(path)
    for step, line in enumerate(sys.stdin):
        if line.strip() == "finish":
            recorder.finish(state(step), step, loss=float(step))
            print("finished", flush=True)
            return
        if line.strip() == "hang":
            hang_in_the_middle()
        recorder(step, state(step), loss=float(step))
        recorder.flush()
        print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
