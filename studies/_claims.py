"""Claims, and what the numbers say about them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ntkstats.analysis import Interval, mean_interval

Verdict = Literal["supported", "contradicted", "mixed", "undecided"]


class Claim(NamedTuple):
    """A statement and its verdict.

    Attributes
    ----------
    statement
        What is claimed.
    verdict
        ``"supported"`` or ``"contradicted"`` if every interval that leaves out 0 lies on that
        side (and there is one), ``"mixed"`` if there are both, else ``"undecided"``.
    tally
        How many intervals lie on the side of the claim, how many on the other one, of how many.
    evidence
        The numbers, with their intervals.
    """

    statement: str
    verdict: Verdict
    tally: str
    evidence: str

    @property
    def headline(self) -> str:
        """Without the numbers."""
        return f"{self.statement}: {self.verdict.upper()} ({self.tally})."

    def __str__(self) -> str:
        return f"{self.headline} {self.evidence}"


def verdict(parts: Iterable[Interval], sign: int) -> Verdict:
    """Judge a claim that all numbers have a sign."""
    signs = {part.sign for part in parts} - {0}
    if not signs:
        return "undecided"
    if len(signs) == 2:
        return "mixed"
    return "supported" if signs == {sign} else "contradicted"


def claim(statement: str, sign: int, parts: Sequence[tuple[str, Interval]]) -> Claim:
    """A claim that several numbers are all positive (`sign` 1) or all negative (-1)."""
    evidence = "; ".join(f"{name}: {said(part)}" for name, part in parts)
    signs = [part.sign for _, part in parts]
    tally = f"{signs.count(sign)} for, {signs.count(-sign)} against, of {len(signs)}"
    return Claim(statement, verdict((part for _, part in parts), sign), tally, f"{evidence}.")


def difference(one: np.ndarray, other: np.ndarray) -> Interval:
    """Mean of ``one - other`` over seeds that both have: they share their initial weights."""
    return mean_interval(np.asarray(one, np.float64) - np.asarray(other, np.float64))


def said(part: Interval) -> str:
    """A number with its interval in words."""
    if math.isnan(part.value):
        return "not known"
    if math.isnan(part.low):
        return f"{_digits(part.value)} (no interval)"
    return f"{_digits(part.value)} [{_digits(part.low)}, {_digits(part.high)}]"


def _digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.3g}"
