"""Numbers of a table: phases at every point, how they go with size, what starting values tell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntkstats import analysis
from ntkstats.analysis import Interval, Phases
from studies._errors import StudyError
from studies.sweeps._table import SEED, STEP, TASK_DIM

_MOST = 500  # records of one trajectory: the search for phases takes the square of them


class Place(NamedTuple):
    """One point of the table.

    Attributes
    ----------
    values
        Labels along the dims of the grid (and the task).
    data
        Its part of the table, ``(seed, step)``, without steps at which it has no record.
    """

    values: dict[str, Any]
    data: xr.Dataset

    @property
    def label(self) -> str:
        """For people: ``width 4, depth 3``."""
        return ", ".join(str(v) if k == TASK_DIM else f"{k} {v}" for k, v in self.values.items())


def grid_dims(table: xr.Dataset) -> tuple[str, ...]:
    """Dims that are neither seeds nor steps."""
    return tuple(str(d) for d in table["diverged"].dims if d != SEED)


def sizes(table: xr.Dataset) -> tuple[str, ...]:
    """Dims of the grid that hold several positive numbers: width, depth, data."""
    return tuple(
        d
        for d in grid_dims(table)
        if table[d].dtype.kind in "if" and table.sizes[d] > 1 and (table[d].values > 0).all()
    )


def places(table: xr.Dataset) -> Iterator[Place]:
    """Every point that has a record."""
    dims = grid_dims(table)
    for index in itertools.product(*(range(table.sizes[d]) for d in dims)):
        at = dict(zip(dims, index, strict=True))
        part = table.isel(at)
        part = part.isel({STEP: np.flatnonzero(part["recorded"].values.astype(bool))})
        if part.sizes[STEP]:
            yield Place({d: table[d].values[i].item() for d, i in at.items()}, part)


def check_field(table: xr.Dataset, field: str) -> None:
    """Answer a field that the table does not hold."""
    if field not in table:
        has = ", ".join(str(n) for n, v in table.data_vars.items() if {SEED, STEP} <= set(v.dims))
        msg = f"The table has no field {field!r}; it holds {has}."
        raise StudyError(msg)


def phases_at(table: xr.Dataset, field: str = "entropy", **options: Any) -> dict[str, Phases]:
    """Phases of a field at every point, by label; options as in `ntkstats.analysis.phases`."""
    check_field(table, field)
    return {place.label: phases_of(place, field, **options) for place in places(table)}


def phases_of(place: Place, field: str = "entropy", **options: Any) -> Phases:
    """Phases of a field at one point; diverged seeds are left out and counted as dropped.

    Of many thousand records an even part is used, first and last included.
    """
    values = place.data[field].transpose(STEP, SEED).values.astype(np.float64)
    diverged = place.data["diverged"].values
    values[:, diverged] = np.nan
    there = np.isfinite(values).any(axis=0) | diverged  # others are no members of this ensemble
    steps = place.data[STEP].values
    used = np.unique(np.linspace(0, steps.size - 1, min(steps.size, _MOST)).round().astype(int))
    return analysis.phases(steps[used], values[np.ix_(used, there)], **options)


class Trend(NamedTuple):
    """How a number of the phases goes with the size of the network.

    Attributes
    ----------
    size
        Field of the grid.
    compression, formation
        Rank correlation over points between the size and how much compression (formation) there
        is, with its interval; what else varies in the grid is averaged over.
    """

    size: str
    compression: Interval
    formation: Interval


def trends(table: xr.Dataset, found: Mapping[str, Phases]) -> tuple[Trend, ...]:
    """Rank correlations of the amounts with every size in the grid, over its points."""
    made = []
    here = [p for p in places(table) if p.label in found and found[p.label].phases]
    for size in sizes(table):
        x = [float(p.values[size]) for p in here]
        amounts = [
            analysis.correlation(
                x, [getattr(found[p.label], kind).value for p in here], kind="spearman"
            )
            for kind in ("compression", "formation")
        ]
        made.append(Trend(size, *amounts))
    return tuple(made)


def ends(place: Place, field: str) -> tuple[np.ndarray, np.ndarray]:
    """First and last record of every seed ``(seed,)``; NaN where it is not finite."""
    values = place.data[field].transpose(STEP, SEED).values.astype(np.float64)
    first, last = np.where(np.isfinite(values), values, np.nan)[[0, -1]]
    return first, last


def final_loss(table: xr.Dataset) -> str | None:
    """The field that says how well a network generalises, as far as there is one."""
    return next((name for name in ("loss_test", "loss") if name in table), None)


def starting_values(
    table: xr.Dataset, start: str, final: str
) -> tuple[dict[str, Interval], Interval]:
    """Correlation over seeds of a starting value with a final one: at every point, and pooled.

    Sizes are fixed within a point, so that the correlation does not come from them.
    """
    each = {}
    for place in places(table):
        each[place.label] = analysis.correlation(ends(place, start)[0], ends(place, final)[1])
    return each, analysis.pooled_correlation(each.values())
