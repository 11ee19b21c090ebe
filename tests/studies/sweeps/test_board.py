"""How the progress of a sweep is told, against a clock that is turned by hand."""

from __future__ import annotations

import io
import json

from studies.sweeps._board import Board, LineScreen, View, screen_to, sentence
from studies.sweeps._signs import LIVE, Sign
from studies.sweeps._work import Outcome


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_time_left_counts_tasks_and_what_is_under_way(tmp_path):
    clock = Clock()
    board = Board(LineScreen(io.StringIO()), tmp_path, 8, 2, clock=clock)
    assert board.view() == View(8, 2, 0, (), None)
    board.count(Outcome("a", "A", "finished"))
    board.count(Outcome("b", "B", "failed", "cursed"))
    (tmp_path / LIVE).mkdir()
    sign = Sign(3, "C", 30, 60)
    (tmp_path / LIVE / "c.json").write_text(json.dumps(sign))
    (tmp_path / LIVE / "d.json").write_text("")
    clock.now = 50.0
    view = board.view()
    assert (view.done, view.failed, view.running) == (3, 1, (sign,))
    assert view.left == 50 * 3.5 / 2.5


def test_lines_come_at_intervals_and_failures_at_once(tmp_path):
    stream, clock = io.StringIO(), Clock()
    screen = LineScreen(stream, interval=10, clock=clock)
    board = Board(screen, tmp_path, 3, 0, clock=clock)
    screen.show(board.view())
    board.count(Outcome("b", "wide net", "lost", "the worker died"))
    clock.now = 11.0
    screen.show(board.view())
    screen.show(board.view())
    assert stream.getvalue().splitlines() == [
        "wide net: lost, the worker died",
        "0 of 3 tasks done, 1 failed; about 22 s left",
    ]


def test_a_line_names_some_of_those_that_run():
    running = tuple(Sign(1, f"net {i}", 3 * i, 9 * (i > 0)) for i in range(6))
    line = sentence(View(20, 4, 0, running, None))
    assert line == "4 of 20 tasks done; net 0 starting, net 1 3/9, net 2 6/9, net 3 9/9, 2 more"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_bars_are_drawn_on_a_terminal():
    stream = Terminal()
    screen = screen_to(stream)
    screen.show(View(9, 4, 1, (Sign(1, "wide [16]", 30, 90), Sign(1, "new", 0, 0)), 90.0))
    screen.say("[kept] as it is")
    screen.show(View(9, 9, 0, (), None))
    screen.close()
    shown = stream.getvalue()
    assert "9/9" in shown
    assert "[kept] as it is" in shown
    assert isinstance(screen_to(io.StringIO()), LineScreen)


def test_the_board_looks_while_others_work(tmp_path):
    shown = []

    class Screen:
        def say(self, text):
            pass

        def show(self, view):
            shown.append(view)

        def close(self):
            shown.append("closed")

    with Board(Screen(), tmp_path, 2, 0, interval=0.01) as board:
        board.count(Outcome("a", "A", "finished"))
        while not any(v.done == 1 for v in list(shown)):
            pass
    assert shown[-1] == "closed"
