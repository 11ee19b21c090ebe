"""Warnings that point at the training loop, not into this package."""

from __future__ import annotations

import os
import sys
import warnings

from ntkstats.errors import RecordingWarning

_HERE = os.path.dirname(os.path.dirname(__file__))


def warn(message: str) -> None:
    """Issue a RecordingWarning at the nearest caller outside the library."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
        level += 1
    warnings.warn(message, RecordingWarning, stacklevel=level)
