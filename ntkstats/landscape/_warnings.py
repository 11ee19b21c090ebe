"""How searches speak to their caller."""

from __future__ import annotations

import warnings

from ntkstats.errors import LandscapeWarning


def warn(message: str) -> None:
    """Warn from where the user called a method of `Landscape`."""
    warnings.warn(message, LandscapeWarning, stacklevel=5)
