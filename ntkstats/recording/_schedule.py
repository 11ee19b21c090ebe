"""When to record: a frozen set of step numbers."""

from __future__ import annotations

import functools
import heapq
import itertools
import operator
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ntkstats.errors import ScheduleError


class _Every(NamedTuple):
    """An arithmetic progression of steps; ``until`` is included, None means for ever."""

    k: int
    start: int
    until: int | None

    def due(self, step: int) -> bool:
        if step < self.start or (self.until is not None and step > self.until):
            return False
        return (step - self.start) % self.k == 0

    def steps(self) -> Iterable[int]:
        if self.until is None:
            return itertools.count(self.start, self.k)
        return range(self.start, self.until + 1, self.k)


@dataclass(frozen=True)
class RecordAt:
    """The steps at which something is recorded.

    A step is the number of updates applied so far. Build one with `every`, `steps`, `log` or
    `budget` and unite several with ``|``. A `Recorder` adds two more: the first state it sees
    (step 0 of a new run) and the final one.

    Attributes
    ----------
    fixed
        Steps listed one by one.
    periodic
        Arithmetic progressions of steps.
    share
        Share of the wall time that the steps in ``wanted`` may take; None without a budget.
    wanted
        Steps that are recorded as far as the budget allows; None without a budget.
    label
        Short name, letters, digits and underscores only; it names the step axis in the recorded
        Dataset. It takes no part in comparisons.

    Raises
    ------
    ScheduleError
        The schedule holds no step, or a number is negative or not an integer.

    Examples
    --------
    >>> at = RecordAt.every(100, until=1000) | RecordAt.steps([5, 7])
    >>> at.due(300), at.due(301), at.due(7)
    (True, False, True)
    >>> RecordAt.log(8, until=1000).points(1000)
    array([   0,    1,    3,   10,   32,  100,  316, 1000])
    """

    fixed: frozenset[int] = frozenset()
    periodic: tuple[_Every, ...] = ()
    share: float | None = None
    wanted: RecordAt | None = None
    label: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.fixed and not self.periodic and self.wanted is None:
            msg = (
                "a schedule was given no step at all; build one with RecordAt.every(k), "
                "RecordAt.steps([...]) or RecordAt.log(n, until=T)"
            )
            raise ScheduleError(msg)
        if not self.label:
            object.__setattr__(self, "label", _label_of(self.fixed, self.periodic))

    @classmethod
    def every(cls, k: int, start: int = 0, until: int | None = None) -> RecordAt:
        """Every ``k`` steps from ``start`` on, up to and including ``until``.

        Parameters
        ----------
        k
            Distance between two records, in steps, at least 1.
        start
            First step.
        until
            No step after this one; None records for ever.
        """
        k = _whole("k", k, least=1)
        start = _whole("start", start, least=0)
        if until is not None:
            until = _whole("until", until, least=0)
            if until < start:
                msg = f"every({k}, start={start}, until={until}) holds no step; give until >= start"
                raise ScheduleError(msg)
        return cls(periodic=(_Every(k, start, until),))

    @classmethod
    def steps(cls, steps: Iterable[int]) -> RecordAt:
        """Exactly these steps, in any order, repeats counted once.

        Parameters
        ----------
        steps
            Integers, at least one, none negative.
        """
        try:
            listed = list(steps)
        except TypeError:
            msg = f"steps({steps!r}) takes a list of steps; write RecordAt.steps([{steps!r}])"
            raise ScheduleError(msg) from None
        return cls(fixed=frozenset(_whole("a step", step, least=0) for step in listed))

    @classmethod
    def log(cls, n: int, *, until: int) -> RecordAt:
        """``n`` steps from 0 to ``until``, evenly spaced on a logarithmic axis.

        Early steps that are closer than 1 apart are recorded one by one and the rest is spread
        again, so there are always exactly ``n`` different steps, or ``until + 1`` if there are
        not that many.

        Parameters
        ----------
        n
            How many different steps, at least 2: step 0 and ``until`` are among them.
        until
            The last step, at least 1.
        """
        n = _whole("n", n, least=2)
        until = _whole("until", until, least=1)
        steps = frozenset((0, *_log_spaced(min(n, until + 1) - 1, until)))
        return cls(fixed=steps, label=f"log_{len(steps)}_until_{until}")

    @classmethod
    def budget(cls, share: float, at: RecordAt | None = None) -> RecordAt:
        """As many records as fit into a share of the run's wall time.

        A `Recorder` measures what a record takes, waits for it, and skips those that would bring
        recording above its share of the time since the first one; the report and the stored run
        say how many were skipped. The first and the final record, and compilation, come on top.
        For loops on the host; a loop on the device has no clock.

        Parameters
        ----------
        share
            Between 0 and 1; 0.05 keeps recording at 5 % of the wall time.
        at
            The steps that are wanted; default every step.

        Examples
        --------
        >>> at = RecordAt.budget(0.05, RecordAt.every(10)) | RecordAt.steps([1000])
        >>> at.due(1000), at.due(10), at.wanted.due(10)
        (True, False, True)
        """
        number = isinstance(share, int | float | np.floating) and not isinstance(share, bool)
        if not number or not 0 < share < 1:
            msg = (
                f"a budget is a share of the wall time between 0 and 1, got {share!r}; write "
                f"RecordAt.budget(0.05) for 5 %"
            )
            raise ScheduleError(msg)
        if at is None:
            at = cls.every(1)
        if not isinstance(at, RecordAt) or at.wanted is not None:
            msg = (
                f"the steps of a budget were given as {at!r}; expected a schedule without a "
                f"budget of its own, such as RecordAt.every(10)"
            )
            raise ScheduleError(msg)
        percent = f"{100 * share:.4g}".replace(".", "p").replace("-", "_").replace("+", "")
        label = f"{percent}_percent_of_{at.label}"
        return cls(share=float(share), wanted=at, label=label)

    @property
    def certain(self) -> RecordAt | None:
        """The steps that are recorded whatever the time; None if there is only a budget."""
        if self.wanted is None:
            return self
        if not self.fixed and not self.periodic:
            return None
        return RecordAt(fixed=self.fixed, periodic=self.periodic)

    def due(self, step: int) -> bool:
        """Whether ``step`` is recorded, whatever a budget says about it."""
        return step in self.fixed or any(rule.due(step) for rule in self.periodic)

    def points(self, until: int) -> np.ndarray:
        """All steps up to and including ``until``, in order: integers ``(k,)``."""
        until = _whole("until", until, least=0)
        steps = itertools.takewhile(lambda step: step <= until, self._in_order())
        return np.fromiter(steps, np.int64)

    def first(self, n: int) -> np.ndarray:
        """The first ``n`` steps (all of them if there are fewer), in order: integers ``(n,)``."""
        n = _whole("n", n, least=0)
        return np.fromiter(itertools.islice(self._in_order(), n), np.int64)

    def _in_order(self) -> Iterator[int]:
        if self.wanted is not None:
            msg = (
                f"{self} follows the clock, and its steps are not known beforehand; give a "
                f"schedule of steps, such as RecordAt.every(100)"
            )
            raise ScheduleError(msg)
        merged = heapq.merge(sorted(self.fixed), *(rule.steps() for rule in self.periodic))
        return (step for step, _ in itertools.groupby(merged))

    def __or__(self, other: RecordAt) -> RecordAt:
        if not isinstance(other, RecordAt):
            return NotImplemented
        if other == self:
            return self
        shares = {at.share for at in (self, other) if at.share is not None}
        if len(shares) > 1:
            msg = (
                f"{self} and {other} have different budgets; unite schedules of one budget, or "
                f"give each to collectors of its own (at=)"
            )
            raise ScheduleError(msg)
        wanted = [at.wanted for at in (self, other) if at.wanted is not None]
        return RecordAt(
            fixed=self.fixed | other.fixed,
            periodic=tuple(sorted({*self.periodic, *other.periodic}, key=_order)),
            share=shares.pop() if shares else None,
            wanted=functools.reduce(operator.or_, wanted) if wanted else None,
            label=f"{self.label}_and_{other.label}",
        )

    def __repr__(self) -> str:
        return f"RecordAt({self.label})"


def _order(rule: _Every) -> tuple[int, int, float]:
    return (rule.k, rule.start, np.inf if rule.until is None else rule.until)


def _whole(name: str, value: object, *, least: int) -> int:
    """``value`` as a Python int, or a ScheduleError that names it."""
    try:
        # bool is an int to Python, but True as a step count is always a slip.
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least:
        msg = f"{name} must be an integer of at least {least}, got {value!r}"
        raise ScheduleError(msg)
    return number


def _log_spaced(n: int, until: int) -> list[int]:
    """``n`` different integers from 1 to ``until`` (n <= until), the last one ``until``."""
    if n == 1:
        return [until]
    # Dense up to the first k from where a geometric progression grows by at least 1 a term.
    for k in range(1, n):
        ratio = (until / k) ** (1.0 / (n - k))
        if k * (ratio - 1.0) >= 1.0:
            tail = [int(k * ratio**j + 0.5) for j in range(1, n - k)]
            return [*range(1, k + 1), *tail, until]
    return [*range(1, n), until]


def _label_of(fixed: frozenset[int], periodic: tuple[_Every, ...]) -> str:
    parts = []
    for k, start, until in periodic:
        text = f"every_{k}" + (f"_from_{start}" if start else "")
        parts.append(text + ("" if until is None else f"_until_{until}"))
    listed = sorted(fixed)
    if len(listed) > 4:
        # Two long lists with the same ends still need different names.
        digest = zlib.crc32(",".join(map(str, listed)).encode())
        parts.append(f"steps_{listed[0]}_to_{listed[-1]}_{digest:08x}")
    elif listed:
        parts.append("steps_" + "_".join(map(str, listed)))
    return "_and_".join(parts)
