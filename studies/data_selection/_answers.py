"""What the numbers say, as JSON values: every size for itself, every number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import rankdata

from ntkstats import selection as sel
from ntkstats.analysis import Interval, mean_interval
from studies.data_selection._measure import AT_INIT
from studies.data_selection._selectors import RANDOM, USES_LABELS

CONFIDENCE = 0.95
LOSS = "validated"
LOSSES = (LOSS, "final", "oracle_min")
RESAMPLES = 4000

Numbers = dict[str, np.ndarray]
Row = dict[str, Any]


class Place(NamedTuple):
    """What a table of numbers is about.

    Attributes
    ----------
    question, dataset, network
        As in a trial.
    """

    question: str
    dataset: str
    network: str

    @property
    def case(self) -> str:
        """For people."""
        return f"{self.dataset}, {self.network}"


def budgets(numbers: Numbers) -> list[int]:
    """Sizes of the sets, increasing."""
    return sorted({int(name.split("/")[0]) for name in numbers if "/" in name})


def league(numbers: Numbers) -> dict[str, Any]:
    """Every selector at every size: paired differences to random sets, in per cent of theirs."""
    names = numbers["names"].astype(str)
    chance = names == RANDOM
    rows = []
    for k in budgets(numbers):
        for place in map(int, np.flatnonzero(~chance)):
            row = compared(numbers, k, place, chance)
            row |= {"selector": str(names[place]), "labels": names[place] in USES_LABELS}
            # The first repeat compiles.
            row["seconds"] = float(np.median(numbers["seconds"][1:, place]))
            rows.append(row)
    return {
        "random": [at_random(numbers, k, chance) for k in budgets(numbers)],
        "rows": rows,
    }


def at_random(numbers: Numbers, k: int, chance: np.ndarray) -> Row:
    """Random sets of one size: the mean over repeats, and how far sets of one repeat differ."""
    row: Row = {"k": k, "sets": int(chance.sum() * len(numbers[f"{k}/{LOSS}"]))}
    for name in (*LOSSES, "accuracy", "effective_entropy", "trace"):
        if f"{k}/{name}" in numbers:
            values = numbers[f"{k}/{name}"][:, chance].mean(-1)
            row[name] = listed(mean_interval(values.mean(1)))
            row[f"{name}_spread"] = float(values.std(1, ddof=1).mean())
    return row


def compared(numbers: Numbers, k: int, place: int, chance: np.ndarray) -> Row:
    """One selector against the random sets of the same repeats and networks."""
    row: Row = {"k": k}
    for name in (*LOSSES, "accuracy", *AT_INIT):
        values = numbers.get(f"{k}/{name}")
        if values is None:
            continue
        ours, theirs = values[:, place], values[:, chance].mean(1)
        # Differences of accuracies and logarithms are what they are; all others are shares.
        plain = name in ("accuracy", "log_determinant")
        scale = 1.0 if plain else 100 / theirs.mean()
        row[name], wins = paired(ours * scale, theirs * scale, k)
        if name == LOSS:
            row["wins"] = wins
    return row


def paired(ours: np.ndarray, theirs: np.ndarray, k: int) -> tuple[list[float], float]:
    """Mean difference with its bootstrap interval over repeats, and how often ours is smaller."""
    both = np.isfinite(ours).all(-1) & np.isfinite(theirs).all(-1)
    if both.sum() < 2:
        return [float("nan")] * 3, float("nan")
    found = sel.paired_difference(
        ours[both], theirs[both], size=k, key=jax.random.key(k), resamples=RESAMPLES
    )
    return [found.mean, found.low, found.high], found.wins


def starts(numbers: Numbers) -> list[Row]:
    """Rank correlations of starting values with the test loss, over random sets of one size."""
    rows = []
    for k in budgets(numbers):
        row: Row = {"k": k, "sets": int(np.prod(numbers[f"{k}/{LOSS}"].shape[:2]))}
        for loss in (LOSS, "oracle_min"):
            losses = numbers[f"{k}/{loss}"].mean(-1)
            row[loss] = {
                name: listed(within_splits(numbers[f"{k}/{name}"].mean(-1), losses))
                for name in AT_INIT
            }
        row["reliability"] = reliability(numbers[f"{k}/{LOSS}"])
        rows.append(row)
    return rows


def within_splits(values: np.ndarray, losses: np.ndarray) -> Interval:
    """Spearman's correlation within splits ``(splits, sets)``, with a bootstrap over sets."""
    x, y = (_centred_ranks(v) for v in (values, losses))
    n = x.shape[1]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, n, (RESAMPLES, *x.shape))
    rho = _pearson(x, y)
    many = _pearson(
        np.take_along_axis(x[None], drawn, axis=-1), np.take_along_axis(y[None], drawn, axis=-1)
    )
    low, high = np.percentile(many, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return Interval(float(rho), float(low), float(high), x.size)


def reliability(losses: np.ndarray) -> float:
    """Rank correlation of the losses of half the networks with those of the others.

    By Spearman and Brown's formula for all of them: what noise of training leaves for any number
    to be correlated with, at most its root.
    """
    half = losses.shape[-1] // 2
    if half < 1:
        return float("nan")
    one, other = losses[..., :half].mean(-1), losses[..., half : 2 * half].mean(-1)
    r = float(_pearson(*(_centred_ranks(v) for v in (one, other))))
    return 2 * r / (1 + r) if r > -1 else float("nan")


def ablations(numbers: Numbers) -> list[Row]:
    """Every variant of RND at every size."""
    groups, values = (numbers[name].astype(str) for name in ("groups", "values"))
    chance = groups == "random"
    rows = []
    for k in budgets(numbers):
        for place in map(int, np.flatnonzero(~chance)):
            row = compared(numbers, k, place, chance)
            row |= {"group": str(groups[place]), "value": str(values[place])}
            for name in ("again", "limit"):
                row[name] = listed(mean_interval(numbers[f"{k}/{name}"][:, place]))
            rows.append(row)
    return rows


def contrasts(numbers: Numbers) -> list[Row]:
    """Pairs of variants against each other: what changes when one thing is changed."""
    groups, values = (numbers[name].astype(str) for name in ("groups", "values"))

    def place(group: str, value: str) -> int:
        return int(np.flatnonzero((groups == group) & (values == value))[0])

    def ends(group: str) -> tuple[int, int]:
        there = np.flatnonzero((groups == group) & (values != "limit"))
        numeric = sorted(there, key=lambda i: float(values[i]))
        return int(numeric[0]), int(numeric[-1])

    narrow, broad = ends("width")
    few, many = ends("outputs")
    strict, loose = ends("threshold")
    base = place("RND", "as it is")
    pairs = [
        ("overlap with the limit, widest less narrowest network", "limit", broad, narrow),
        ("picks of two seeds in common, most less fewest outputs", "again", many, few),
        ("picks of two seeds in common, most pairs less one", "again", ends("pairs")[1], base),
        ("test loss, most less fewest outputs", LOSS, many, few),
        ("test loss, most pairs less one", LOSS, ends("pairs")[1], base),
        ("test loss, strictest less loosest threshold", LOSS, strict, loose),
        ("test loss, restart less going on", LOSS, place("start", "restart"), base),
        ("test loss, inputs of one norm less as they are", LOSS,
         place("norm", "RND, unit inputs"), base),
        ("test loss, MaxDet normalised less as it is", LOSS,
         place("norm", "MaxDet, normalised"), place("norm", "MaxDet")),
        ("test loss, RNDLimit normalised less as it is", LOSS,
         place("norm", "RNDLimit, normalised"), place("norm", "RNDLimit")),
        ("trace, RND with inputs of one norm less random", "trace",
         place("norm", "RND, unit inputs"), None),
    ]  # fmt: skip
    rows = []
    for what, name, one, other in pairs:
        for k in budgets(numbers):
            table = numbers[f"{k}/{name}"]
            table = table[..., None] if table.ndim == 2 else table
            theirs = table[:, groups == "random"].mean(1) if other is None else table[:, other]
            chance = table[:, groups == "random"].mean()
            scale = 1.0 if name in ("limit", "again") else 100 / chance
            difference, _ = paired(table[:, one] * scale, theirs * scale, k)
            rows.append({"what": what, "k": k, "difference": difference})
    return rows


def atoms(numbers: Numbers, methods: Sequence[str], tolerance: float) -> dict[str, Any]:
    """Rounds of the tolerance loop, and other sets of the same sizes."""
    rounds = []
    for i in range(numbers["sizes"].shape[1]):
        row: Row = {
            "size": float(numbers["sizes"][:, i].mean()),
            "neighbours": listed(mean_interval(numbers["neighbours"][:, i])),
        }
        optimism = numbers["neighbours"][:, i] - numbers["test/strides"][:, i]
        row["optimism"] = listed(mean_interval(optimism))
        for part in ("test", "minority", "majority"):
            chance = numbers[f"{part}/random"][:, i]
            for name in methods:
                values = numbers[f"{part}/{name}"][:, i]
                row[f"{part}/{name}"] = listed(mean_interval(values))
                if name != "random":
                    there = np.isfinite(values) & np.isfinite(chance)
                    row[f"{part}/{name} less random"], _ = paired(
                        values[there, None], chance[there, None], round(row["size"])
                    )
        rounds.append(row)
    stop = numbers["stop"]
    ended = stop >= 0
    here = np.flatnonzero(ended)
    at_stop = {
        name: listed(mean_interval(numbers[source][here, stop[here]]))
        for name, source in (
            ("size", "sizes"), ("neighbours", "neighbours"), ("test", "test/strides"),
            ("minority", "minority/strides"),
        )
    }  # fmt: skip
    lucky = numbers["neighbours"][here, stop[here]] - numbers["test/strides"][here, stop[here]]
    at_stop["optimism"] = listed(mean_interval(lucky))
    return {
        "tolerance": tolerance,
        "repeats": len(stop),
        "converged": int(ended.sum()),
        "at_stop": at_stop,
        "rounds": rounds,
    }


def overview(leagues: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Of every selector in how many places it is better and worse than random; best first."""
    found: dict[str, Row] = {}
    for table in leagues.values():
        for row in table["rows"]:
            one = found.setdefault(
                row["selector"],
                {"selector": row["selector"], "labels": row["labels"],
                 "better": 0, "worse": 0, "places": 0, "changes": []},
            )  # fmt: skip
            mean, low, high = row[LOSS]
            one["better"] += high < 0
            one["worse"] += low > 0
            one["places"] += 1
            one["changes"].append(mean)
    for one in found.values():
        one["median"] = float(np.median(one.pop("changes")))
        one |= {name: int(one[name]) for name in ("better", "worse")}
    return sorted(found.values(), key=lambda r: (r["worse"] - r["better"]) / r["places"])


def listed(part: Interval) -> list[float]:
    """Value and ends."""
    return [part.value, part.low, part.high]


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks within each row, less their mean; equal values share theirs."""
    flat = values.reshape(-1, values.shape[-1])
    ranks = np.stack([rankdata(row) for row in flat]).reshape(values.shape)
    return np.asarray(ranks - ranks.mean(-1, keepdims=True))


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Over the last two axes, about the mean of each row."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    norm = np.sqrt((x**2).sum((-2, -1)) * (y**2).sum((-2, -1)))
    return np.asarray((x * y).sum((-2, -1)) / np.where(norm > 0, norm, np.nan))
