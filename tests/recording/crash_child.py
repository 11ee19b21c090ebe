"""A run that is going to be killed: ``python -m tests.recording.crash_child PATH START [flush]``.

Prints each step as soon as the recorder has returned; with "flush", as soon as it has promised
that the record is stored.
"""

import sys

from ntkstats.recording import RecordAt, Recorder
from tests.recording.helpers import MODEL, PROBE, state, weight_mean, weights


def main(path: str, start: int, flush: bool) -> None:
    """Record every step from `start` on until killed."""
    # Large enough that a transaction takes many writes and a kill often falls into one.
    what = [weight_mean(), weights(repeat=20_000)]
    recorder = Recorder(path, MODEL, PROBE, what, at=RecordAt.every(1), resume=True)
    step = start
    while True:
        recorder(step, state(step), loss=float(step))
        if flush:
            recorder.flush()
        print(step, flush=True)
        step += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "flush" in sys.argv[3:])
