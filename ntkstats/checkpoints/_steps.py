"""Which step a checkpoint belongs to, from its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ntkstats.errors import CheckpointError

_NUMBER = re.compile(r"\d+")
_STEP = re.compile(r"(?<![a-z])(?:global[-_]?)?(?:steps?|iter(?:ation)?s?|updates?)[-_=]*$", re.I)
_CHECKPOINT = re.compile(r"(?<![a-z])(?:checkpoints?|ckpts?)[-_=]*$", re.I)
_EPOCH = re.compile(r"(?<![a-z])(?:epochs?|ep)[-_=]*$", re.I)

_WHAT_TO_DO = "Say it yourself: {step: path}, or a list of (step, path)"


def has_number(name: str) -> bool:
    """Whether a name holds a number at all."""
    return _NUMBER.search(name) is not None


def steps_of(names: Sequence[str]) -> list[int]:
    """The step in each name (without its ending); those of one series are read together.

    A number after ``step``, ``iter`` or ``update`` is the step, else the only number, else the one
    after ``checkpoint`` or ``ckpt``, else the only one that differs within the series.

    Raises
    ------
    CheckpointError
        A name holds no number, several that could be meant, or a number of epochs.

    Examples
    --------
    >>> steps_of(["checkpoint_1000", "epoch=3-step=1200", "model_000100"])
    [1000, 1200, 100]
    >>> steps_of(["resnet50_10", "resnet50_200"])
    [10, 200]
    """
    series: dict[str, list[str]] = {}
    for name in names:
        series.setdefault(_NUMBER.sub("#", name), []).append(name)
    return [_step_of(name, series[_NUMBER.sub("#", name)]) for name in names]


def _step_of(name: str, series: Sequence[str]) -> int:
    found = list(_NUMBER.finditer(name))
    if not found:
        msg = f"the checkpoint {name!r} has no number in its name. {_WHAT_TO_DO}"
        raise CheckpointError(msg)
    before = [name[: match.start()] for match in found]
    tagged = [i for i, text in enumerate(before) if _STEP.search(text)]
    if len(tagged) == 1:
        return int(found[tagged[0]].group())
    chosen = _chosen(before, series)
    if tagged or chosen is None:
        numbers = ", ".join(match.group() for match in found)
        msg = (
            f"the checkpoint {name!r} has several numbers in its name ({numbers}), and any of them "
            f"could be its step. {_WHAT_TO_DO}"
        )
        raise CheckpointError(msg)
    if _EPOCH.search(before[chosen]):
        msg = (
            f"the name of the checkpoint {name!r} counts epochs, and a step is a number of "
            f"updates. {_WHAT_TO_DO}"
        )
        raise CheckpointError(msg)
    return int(found[chosen].group())


def _chosen(before: Sequence[str], series: Sequence[str]) -> int | None:
    """Which of the numbers is the step; None if that cannot be told."""
    if len(before) == 1:
        return 0
    tagged = [i for i, text in enumerate(before) if _CHECKPOINT.search(text)]
    if len(tagged) == 1:
        return tagged[0]
    rows = {tuple(_NUMBER.findall(name)) for name in series}
    differ = [i for i, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1]
    return differ[0] if len(differ) == 1 else None
