"""How far a scan is, in plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO, TypeAlias

Progress: TypeAlias = Callable[[int, int | None], None]


def lines(
    stream: TextIO | None = None,
    *,
    interval: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """A ``progress(done, total)`` that prints a line every few seconds, and the last one.

    Parameters
    ----------
    stream
        Where to write; standard error by default.
    interval
        Seconds between two lines.
    clock
        Returns seconds.
    """
    began = clock()
    shown = began

    def show(done: int, total: int | None) -> None:
        nonlocal shown
        now = clock()
        if now - shown < interval and done != total:
            return
        shown = now
        of = "" if total is None else f" of {total}"
        text = f"checkpoint {done}{of}, {now - began:.0f} s"
        print(text, file=sys.stderr if stream is None else stream, flush=True)

    return show
