"""Settings of searches, refused before a search starts rather than in its middle."""

from __future__ import annotations

import math
from typing import Any

from ntkstats.errors import LandscapeError


def check_settings(config: Any, positive: tuple[str, ...], counts: tuple[str, ...]) -> None:
    """Refuse settings that are no positive numbers, or no whole numbers of at least 1."""
    kind = type(config).__name__
    for name in positive:
        value = getattr(config, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            msg = f"{kind}({name}={value!r}); expected a positive number."
            raise LandscapeError(msg)
    for name in counts:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            msg = f"{kind}({name}={value!r}); expected a whole number of at least 1."
            raise LandscapeError(msg)
