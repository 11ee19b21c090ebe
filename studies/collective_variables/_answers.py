"""What the numbers of each question say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import xarray as xr

from ntkstats import analysis
from ntkstats.analysis import Interval, Phases
from studies._claims import Claim, claim, difference, said
from studies.sweeps import phases_at, starting_values, trends
from studies.sweeps._numbers import Place, ends, places, sizes

HURT_AFTER = 300  # updates with wrong targets after which the damage is taken


class Answer(NamedTuple):
    """Verdicts, and what else there is to say.

    Attributes
    ----------
    claims
        Each with its numbers.
    remarks
        Sentences.
    """

    claims: tuple[Claim, ...]
    remarks: tuple[str, ...] = ()


def of_size(table: xr.Dataset) -> Answer:
    """Small networks compress, deep ones form structure: at every point, and as a trend."""
    found = phases_at(table)
    here = list(places(table))
    narrow, deep = (edge(here, name) for name in ("width", "depth"))
    by_size = {trend.size: trend for trend in trends(table, found)}
    claims = [
        claim(
            f"The entropy falls in the narrowest networks (width {narrow})",
            -1,
            [(p.label, found[p.label].net) for p in here if p.values["width"] == narrow],
        ),
        claim(
            f"The entropy rises in the deepest networks (depth {deep})",
            1,
            [(p.label, found[p.label].net) for p in here if p.values["depth"] == deep],
        ),
    ]
    if "width" in by_size:
        claims.append(
            claim(
                "Compression is the stronger the narrower the network",
                -1,
                [("rank correlation of width with compression", by_size["width"].compression)],
            )
        )
    if "depth" in by_size:
        claims.append(
            claim(
                "Structure formation is the stronger the deeper the network",
                1,
                [("rank correlation of depth with formation", by_size["depth"].formation)],
            )
        )
    return Answer(tuple(claims), (*_laws(table), *_diverged(table)))


def of_data(table: xr.Dataset) -> Answer:
    """Entropy and trace at the end rise with the number of samples."""
    claims = [
        claim(
            f"The {field} at the end is larger after learning from more samples",
            1,
            _extremes(table, "samples", partial(_last, field)),
        )
        for field in ("entropy", "trace")
    ]
    return Answer(tuple(claims), _laws(table))


def of_batch(table: xr.Dataset) -> Answer:
    """The entropy changes less (or the other way) with larger batches."""
    return Answer(
        (
            claim(
                "Larger batches compress less (the entropy falls less)",
                -1,
                _extremes(table, "batch_size", fall),
            ),
        ),
        _amounts(table),
    )


def of_redundancy(table: xr.Dataset) -> Answer:
    """Copies of samples bring compression about."""
    return Answer(
        (
            claim(
                "Copies of training samples make the entropy fall more",
                1,
                _extremes(table, "copies", fall),
            ),
        ),
        _amounts(table),
    )


def of_activation(table: xr.Dataset) -> Answer:
    """Networks that learn move their entropy; those that fail to do not."""
    trained: list[tuple[str, Interval]] = []
    failed: list[tuple[str, Interval]] = []
    for place in places(table):
        accuracy = analysis.mean_interval(ends(place, "accuracy_test")[1])
        start, end = ends(place, "entropy")
        moved = analysis.mean_interval(np.abs(end - start))
        (trained if accuracy.value > 0.5 else failed).append((place.label, moved))
    remarks = [
        f"Networks that learn (test accuracy above 0.5): {_listed(trained)}.",
        f"Networks that fail to: {_listed(failed)}.",
    ]
    return Answer((), (*remarks, *_diverged(table), *_amounts(table)))


def of_corruption(table: xr.Dataset) -> Answer:
    """The damage of late corruption goes with the trace at that moment."""
    within: list[Interval] = []
    across: list[tuple[str, Interval]] = []
    lines = []
    by_width: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for place, control in corrupted(table):
        trace, hurt = damage(place, control)
        within.append(analysis.correlation(trace, hurt))
        by_width.setdefault(place.values["width"], []).append((trace, hurt))
        lines.append(
            f"{place.label}: trace {trace.mean():.3g}, test loss larger by "
            f"{said(analysis.mean_interval(hurt))}"
        )
    for width, pairs in by_width.items():
        times = np.stack([trace for trace, _ in pairs]), np.stack([hurt for _, hurt in pairs])
        each = [
            analysis.correlation(times[0][:, seed], times[1][:, seed], kind="spearman").value
            for seed in range(times[0].shape[1])
        ]
        across.append((f"width {width}", analysis.mean_interval(each)))
    pooled = analysis.pooled_correlation(within)
    return Answer(
        (
            claim(
                "Corruption that sets in later, at a larger trace, hurts more (rank correlation "
                "over moments, mean over seeds)",
                1,
                across,
            ),
            claim(
                "At the same moment, networks of larger trace are hurt more",
                1,
                [("correlation over seeds, pooled", pooled)],
            ),
        ),
        (
            f"Test loss after {HURT_AFTER} updates with wrong targets, against the same network "
            f"with right ones: {'; '.join(lines)}.",
        ),
    )


def of_probe(table: xr.Dataset) -> Answer:
    """From which size of the probe on the entropy tells the same story."""
    lines = []
    for width in np.unique(table["width"].values):
        here = {int(p.values["probe"]): p for p in places(table) if p.values["width"] == width}
        largest = max(here)
        reference = _mean_curve(here[largest])
        same = [
            f"{n}: net {said(analysis.mean_interval(_net(p)))}, correlation with the curve of "
            f"{largest} {np.corrcoef(_mean_curve(p), reference)[0, 1]:.3f}"
            for n, p in sorted(here.items())
        ]
        lines.append(f"Width {width}, by samples of the probe: {'; '.join(same)}.")
    return Answer((), tuple(lines))


def of_starts(table: xr.Dataset) -> Answer:
    """Starting values tell the final loss."""
    claims = []
    for field in ("entropy", "trace"):
        each, pooled = starting_values(table, field, "loss_test")
        claims.append(
            claim(
                f"At fixed size, a larger {field} at the start goes with a smaller final test loss",
                -1,
                [("pooled correlation", pooled), *each.items()],
            )
        )
    return Answer(tuple(claims))


def of_systems(found: Mapping[str, Phases]) -> Answer:
    """Which mechanism each system shows."""
    lines = [
        f"{name}: {', '.join(p.kinds) or 'too few records'}; net {said(p.net)}, compression "
        f"{said(p.compression)}, structure formation {said(p.formation)} ({p.seeds} seeds)"
        for name, p in found.items()
    ]
    return Answer(
        (
            claim(
                "The entropy rises in deep architectures of every kind",
                1,
                [(name, p.net) for name, p in found.items()],
            ),
        ),
        (". ".join(lines) + ".",),
    )


ANSWERS: Mapping[str, Callable[[xr.Dataset], Answer]] = MappingProxyType(
    {
        "size": of_size,
        "tanh": of_size,
        "regression": of_size,
        "data": of_data,
        "batch": of_batch,
        "redundancy": of_redundancy,
        "activation": of_activation,
        "corruption": of_corruption,
        "probe": of_probe,
        "starts": of_starts,
    }
)
"""What answers each question about one table; that about several systems is `of_systems`."""


def edge(here: list[Place], name: str) -> int:
    """The narrowest width, or the largest of another size."""
    values = [int(p.values[name]) for p in here]
    return min(values) if name == "width" else max(values)


def _last(field: str, place: Place) -> np.ndarray:
    return ends(place, field)[1]


def fall(place: Place) -> np.ndarray:
    """How far the entropy falls below its start, of every seed [nat]."""
    values = _curves(place)
    return np.asarray(values[0] - np.min(values, axis=0))


def corrupted(table: xr.Dataset) -> list[tuple[Place, Place]]:
    """Every place whose targets turn wrong, with its control: the same width, right to the end."""
    here = list(places(table))
    end = edge(here, "corrupt_at")
    controls = {p.values["width"]: p for p in here if p.values["corrupt_at"] == end}
    return [(p, controls[p.values["width"]]) for p in here if p.values["corrupt_at"] < end]


def damage(place: Place, control: Place) -> tuple[np.ndarray, np.ndarray]:
    """Trace when the targets turn wrong, and what the test loss is above its control, by seed.

    Seeds share initial weights and batches with those of the control, so that they are one
    network up to that moment.
    """
    at = float(place.values["corrupt_at"])
    later = min(at + HURT_AFTER, float(place.data["step"].values[-1]))
    hurt = _by_seed(place, "loss_test", later) - _by_seed(control, "loss_test", later)
    return _by_seed(place, "trace", at), hurt


def _by_seed(place: Place, field: str, where: float) -> np.ndarray:
    """Values at a step, between records on a straight line."""
    steps = place.data["step"].values.astype(float)
    values = place.data[field].transpose("seed", "step").values
    there = [np.isfinite(row) for row in values]
    return np.array(
        [
            np.interp(where, steps[ok], row[ok]) if ok.any() else np.nan
            for row, ok in zip(values, there, strict=True)
        ]
    )


def _curves(place: Place) -> np.ndarray:
    values = place.data["entropy"].transpose("step", "seed").values
    return np.asarray(values[np.isfinite(values).any(axis=1)])


def _mean_curve(place: Place) -> np.ndarray:
    return np.asarray(_curves(place).mean(axis=1))


def _net(place: Place) -> np.ndarray:
    start, end = ends(place, "entropy")
    return end - start


def _extremes(
    table: xr.Dataset, along: str, number: Callable[[Place], np.ndarray]
) -> list[tuple[str, Interval]]:
    """Largest against smallest value of a setting, seed by seed, at every other setting."""
    groups: dict[str, dict[float, Place]] = {}
    for place in places(table):
        rest = ", ".join(f"{k} {v}" for k, v in place.values.items() if k != along)
        groups.setdefault(rest, {})[float(place.values[along])] = place
    return [
        (
            f"{rest}, {along} {max(by):g} less {min(by):g}",
            difference(number(by[max(by)]), number(by[min(by)])),
        )
        for rest, by in groups.items()
        if len(by) > 1
    ]


def _amounts(table: xr.Dataset) -> tuple[str, ...]:
    lines = [
        f"{label}: compression {said(p.compression)}, structure formation {said(p.formation)}"
        for label, p in phases_at(table).items()
    ]
    return (f"Phases of the entropy [nat]: {'; '.join(lines)}.",)


def _laws(table: xr.Dataset) -> tuple[str, ...]:
    """How entropy and trace at the start go with every size: exponents of power laws."""
    lines = []
    for along in sizes(table):
        for field in ("entropy", "trace"):
            for end, when in enumerate(("start", "end")):
                each = _exponents(table, along, field, end)
                if each:
                    lines.append(f"{field} at the {when} with {along}: {', '.join(each)}")
    return (f"Exponents of power laws: {'; '.join(lines)}.",) if lines else ()


def _exponents(table: xr.Dataset, along: str, field: str, end: int) -> list[str]:
    groups: dict[str, list[Place]] = {}
    for place in places(table):
        rest = ", ".join(f"{k} {v}" for k, v in place.values.items() if k != along)
        groups.setdefault(rest, []).append(place)
    found = []
    for rest, here in groups.items():
        if len(here) < 3:
            continue
        x = np.array([float(p.values[along]) for p in here])
        law = analysis.power_law(x, np.stack([ends(p, field)[end] for p in here]))
        found.append(f"{said(law.exponent)} ({rest})")
    return found


def _diverged(table: xr.Dataset) -> tuple[str, ...]:
    count = int(table["diverged"].sum())
    return (f"{count} of {table['diverged'].size} runs diverged.",) if count else ()


def _listed(parts: list[tuple[str, Interval]]) -> str:
    return (
        "; ".join(f"{name}: entropy moved by {said(part)}" for name, part in parts) or "none here"
    )
