"""What sets are worth: before training, and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optax

from ntkstats import selection as sel
from studies.data_selection._case import Case
from studies.data_selection._tiers import Sizes

NUMBERS = "numbers.npz"

AT_INIT = (
    "entropy",
    "effective_entropy",
    "trace",
    "log_determinant",
    "posterior_variance",
    "fill_distance",
    "mmd",
)
"""Numbers of a set at initialisation that are kept, of every network."""

_OPTIMIZERS: dict[float, optax.GradientTransformation] = {}


def measure(
    case: Case, sizes: Sizes, members: list[Any], sets: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores ``(sets, seeds)`` of sets ``(sets, k)`` of one size, by their names."""
    start = sel.score_at_init(members, sets)
    # A new optimiser would be a new program.
    optimizer = _OPTIMIZERS.setdefault(sizes.learning_rate, optax.adam(sizes.learning_rate))
    end = sel.score_trained(
        case.keys,
        *case.network,
        optimizer,
        case.loss,
        case.pool,
        sets,
        test=case.test,
        validation=case.validation,
        steps=sizes.steps,
        evaluations=sizes.evaluations,
        metrics=case.metrics,
    )
    found = {name: getattr(start, name) for name in AT_INIT}
    found |= {"final": end.final, "oracle_min": end.oracle_min, **end.metrics}
    assert end.validated is not None
    found["validated"] = end.validated
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def stacked(repeats: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Repeats as a first axis of everything."""
    listed = list(repeats)
    return {name: np.stack([one[name] for one in listed]) for name in listed[0]}


def keep(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the numbers of a trial."""
    stored: dict[str, Any] = dict(arrays)
    np.savez_compressed(folder / NUMBERS, **stored)


def kept(folder: Path) -> dict[str, np.ndarray]:
    """Read them back."""
    with np.load(folder / NUMBERS) as stored:
        return {name: stored[name] for name in stored.files}
