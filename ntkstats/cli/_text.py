"""Numbers, sizes and tables as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ntkstats.collectors import Field

DIGITS = 5
"""Significant digits of a measured number."""

_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SECONDS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def safe(text: str) -> str:
    """``text`` in one line, without what would steer the terminal: it may come from anywhere."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def number(value: float) -> str:
    """A number with its significant digits; whole ones in full."""
    value = float(value)
    if value.is_integer() and abs(value) < 10**DIGITS:
        return str(int(value))
    return f"{value:.{DIGITS}g}"


def numbers(value: np.ndarray) -> str:
    """One number, or the median and the range over the members."""
    if np.iscomplexobj(value):
        return safe(np.array2string(value, precision=DIGITS))
    if value.ndim == 0:
        return number(value.item())
    finite = value[np.isfinite(value)]
    if not finite.size:
        return "nan"
    low, middle, high = (number(f(finite)) for f in (np.min, np.median, np.max))
    lacking = value.size - finite.size
    return f"{middle} [{low}, {high}]" + (f" ({lacking} not finite)" if lacking else "")


def size(count: float) -> str:
    """Bytes in words."""
    scale, unit = next((s for s in _BYTES if count >= s[0]), (1.0, "bytes"))
    return f"{count / scale:.3g} {unit}"


def seconds(value: float) -> str:
    """A duration in words."""
    scale, unit = next((s for s in _SECONDS if value >= s[0]), (1.0, "s"))
    return f"{value / scale:.3g} {unit}"


def unit_of(field: Field) -> str:
    """The unit, nothing for pure numbers."""
    return "" if field.units in ("", "1") else field.units


def plain(value: Any) -> str:
    """A setting in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return str(value)


def table(rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), gap: str = "  ") -> str:
    """Aligned columns; those in ``right`` end flush."""
    lines = [[safe(cell) for cell in row] for row in rows]
    if not lines:
        return ""
    flush = set(right)
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    return "\n".join(
        gap.join(
            cell.rjust(width) if i in flush else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in lines
    )
