"""Figures, words and numbers: made from stored landscapes alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ntkstats.analysis import Interval, mean_interval
from ntkstats.landscape import Landscape
from studies._claims import said
from studies._folder import write_whole
from studies._study import Finished, Report
from studies.ml_landscapes._config import Config, Explored
from studies.ml_landscapes._explore import FILE
from studies.ml_landscapes._numbers import Measured, measured
from studies.ml_landscapes._plots import draw

_COLUMNS = (
    "minima",
    "with images",
    "transition states",
    "parts",
    "Morse sum",
    "heat capacity",
    "entropy to low passes",
    "to high passes",
)


class Mapped(NamedTuple):
    """A landscape that was searched, and its numbers."""

    task: Explored
    scape: Landscape
    numbers: Measured


def report(config: Config, finished: Sequence[Finished], folder: Path) -> Report:
    """Write figures, ``report.md`` and ``answers.json``; the text is also returned."""
    mapped = []
    for task, place in finished:
        scape = Landscape(task.problem(), place / FILE)
        mapped.append(Mapped(task, scape, measured(scape)))
    figures = draw(mapped, folder)
    text = "\n\n".join(answers(mapped))
    rows = [_row(it) for it in mapped]
    pictures = [f"![{title}]({path.name})\n\n*{caption}*" for path, title, caption in figures]
    page = "\n\n".join([text, table(mapped), *pictures]) + "\n"
    write_whole(folder / "report.md", page)
    found = {
        "command": "python -m studies run ml_landscapes",
        "config": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "intervals": "95 %, Student, over splits of the flowers",
        "over_splits": {f"{l2:g}": _plain(over) for l2, over in splits(mapped).items()},
        "landscapes": rows,
    }
    write_whole(folder / "answers.json", json.dumps(found, indent=1) + "\n")
    for it in mapped:
        it.scape.close()
    written = [path for path, _, _ in figures]
    return Report(text, (*written, folder / "report.md", folder / "answers.json"))


def splits(mapped: Sequence[Mapped]) -> dict[float, dict[str, Interval]]:
    """Means over splits of every number of the iris landscapes, by weight decay."""
    found: dict[float, dict[str, Interval]] = {}
    iris = [it for it in mapped if it.task.data == "iris"]
    for l2 in sorted({it.task.l2 for it in iris}, reverse=True):
        rows = [it.numbers for it in iris if it.task.l2 == l2]
        found[l2] = {
            name: mean_interval([float(getattr(row, name)) for row in rows])
            for name in Measured._fields
            if name != "morse_sum"
        }
        changes = [(row.low_change, row.high_change) for row in rows]
        found[l2]["low_less_high"] = mean_interval([low - high for low, high in changes])
        steeper = [row.high_spread - row.low_spread for row in rows]
        found[l2]["spread_high_less_low"] = mean_interval(steeper)
    return found


def answers(mapped: Sequence[Mapped]) -> list[str]:
    """What was found, in sentences."""
    found = [sentence for sentence in (_xor(mapped),) if sentence]
    for l2, over in splits(mapped).items():
        found.append(_iris(l2, over))
    return found


def _xor(mapped: Sequence[Mapped]) -> str:
    rows = [it for it in mapped if it.task.data == "xor"]
    if not rows:
        return ""
    missing = [it for it in rows if it.numbers.morse_sum != 1]
    text = f"XOR: the Morse sum is 1 in {len(rows) - len(missing)} of {len(rows)} landscapes"
    if missing:
        named = ", ".join(f"{it.task.label} ({_or(it.numbers.morse_sum)})" for it in missing)
        text += f"; something was not found in {named}"
    for name, what in (("low_change", "low"), ("high_change", "high")):
        changes = [float(getattr(it.numbers, name)) for it in rows]
        changes = [change for change in changes if math.isfinite(change)]
        if not changes:
            continue
        falls = sum(change < 0 for change in changes)
        text += (
            f". Up to {what} passes the NTK entropy falls in {falls} of {len(changes)}: it "
            f"changes by {min(changes):+.3f} to {max(changes):+.3f} nat"
        )
    return text + "."


def _iris(l2: float, over: Mapping[str, Interval]) -> str:
    texts = [
        f"iris at l2 {l2:g}: {said(over['minima'])} minima and {said(over['saddles'])} transition "
        f"states (means over {over['minima'].n} splits, 95 % intervals)."
    ]
    if over["lowest_accuracy"].n:
        texts.append(
            f"The lowest minimum gets {said(over['lowest_accuracy'])} of the test right, the mean "
            f"minimum {said(over['mean_accuracy'])}, the best {said(over['best_accuracy'])}."
        )
    for name, what in (
        ("energy_accuracy", "training loss"),
        ("entropy_accuracy", "NTK entropy"),
    ):
        if over[name].n:
            texts.append(
                f"Over minima, test accuracy and {what} have rank correlation {said(over[name])} "
                f"({_verdict(over[name])})."
            )
    for name, what in (("low_change", "low"), ("high_change", "high")):
        if over[name].n:
            texts.append(
                f"From minima up to {what} passes the entropy changes by {said(over[name])} nat "
                f"({_verdict(over[name])})."
            )
    if over["low_less_high"].n > 1:
        texts.append(
            f"Low less high, that is {said(over['low_less_high'])} nat "
            f"({_verdict(over['low_less_high'])})."
        )
    if over["spread_high_less_low"].n > 1:
        texts.append(
            f"Along a whole pathway it varies by {said(over['low_spread'])} nat over low barriers, "
            f"and by {said(over['spread_high_less_low'])} nat more over high ones; the two minima "
            f"of a low one differ by {said(over['low_between'])} nat."
        )
    return " ".join(texts)


def _verdict(part: Interval) -> str:
    if part.n < 2:
        return "no interval"
    return {1: "positive", -1: "negative", 0: "undecided"}[part.sign]


def table(mapped: Sequence[Mapped]) -> str:
    """Every landscape a row, as Markdown."""
    lines = [f"| landscape | {' | '.join(_COLUMNS)} |", "| --- " * (len(_COLUMNS) + 1) + "|"]
    for it in mapped:
        n = it.numbers
        peak = "no peak"
        if n.peaks:
            how_many = f"{n.peaks} peak" + "s" * (n.peaks > 1)
            peak = f"{how_many}, {n.peak_height:.2f} at {n.peak_temperature:.2g}"
        counted = (n.minima, n.minima_raw, n.saddles, n.parts, _or(n.morse_sum))
        cells = (*map(str, counted), peak, _signed(n.low_change), _signed(n.high_change))
        lines.append(f"| {it.task.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(it: Mapped) -> dict[str, Any]:
    return {
        "label": it.task.label,
        **{name: _plain(value) for name, value in it.numbers._asdict().items()},
    }


def _or(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _signed(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else "none"


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
