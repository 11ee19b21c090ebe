"""How progress is written, against a clock that is turned by hand."""

from __future__ import annotations

import io
import math

import pytest

from ntkstats.recording import RecordAt
from studies._bars import Bars
from studies._pace import Pace
from studies._progress import Lines, duration, progress_to


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lines(interval=5.0):
    stream, clock = io.StringIO(), Clock()
    return Lines(stream, interval=interval, clock=clock), stream, clock


def test_lines_come_at_most_once_an_interval_and_once_at_the_end():
    progress, stream, clock = lines()
    with progress.bar("net") as update:
        for done in range(0, 101):
            clock.now = 0.2 * done
            update(done, 100)
    written = stream.getvalue().splitlines()
    assert written == [
        "net: step 25 of 100",
        "net: step 50 of 100, 10 s left",
        "net: step 75 of 100, 5 s left",
        "net: 100 steps in 20 s",
    ]


def test_time_left_follows_the_latest_pace_not_compilation():
    progress, stream, clock = lines()
    with progress.bar("net") as update:
        for clock.now, done in ((60.0, 1), (65.0, 6), (70.0, 16)):
            update(done, 100)
    assert "step 6 of 100, 1 min 34 s left" in stream.getvalue()
    assert "step 16 of 100, 42 s left" in stream.getvalue()


def test_given_time_left_is_used_and_nan_is_left_out():
    progress, stream, clock = lines()
    with progress.bar("net") as update:
        for clock.now, left in ((6.0, 90.0), (12.0, math.nan)):
            update(50, 100, left)
    assert stream.getvalue().splitlines()[:2] == [
        "net: step 50 of 100, 1 min 30 s left",
        "net: step 50 of 100",
    ]


def test_lines_are_written_when_the_output_is_no_terminal():
    assert isinstance(progress_to(io.StringIO()), Lines)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_bars_are_drawn_on_a_terminal():
    stream = Terminal()
    progress = progress_to(stream)
    assert isinstance(progress, Bars)
    with progress.bar("net [16]") as update:
        update(10, 100, 90.0)
        update(100, 100, math.nan)
    progress.say("[kept] as it is")
    assert "100/100" in stream.getvalue()
    assert "net [16]" in stream.getvalue()
    assert "[kept] as it is" in stream.getvalue()


def test_pace_counts_records_to_come_and_not_compilation():
    clock, told = Clock(), []
    at = RecordAt.steps([0, 1, 2, 10, 100])
    pace = Pace(lambda done, total, left=None: told.append((done, left)), at, clock=clock)
    # a record takes 4 s, a step 0.01 s, compilation 50 s; stops as training.run makes them
    pace(0, 100)
    clock.now += 54.01
    pace(1, 100)
    clock.now += 4.01
    pace(2, 100)
    clock.now += 4.08
    pace(10, 100)
    clock.now += 4.40
    pace(50, 100)
    clock.now += 0.25
    pace(75, 100)
    assert [math.isnan(left) for _, left in told] == [True, True, False, False, False, False]
    assert told[2][1] == pytest.approx(3 * 4.01)  # at 2, 10 and 100
    assert told[-1][1] == pytest.approx(1 * 4.0 + 25 * 0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
