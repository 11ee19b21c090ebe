"""The answer in numbers and words: how the entropy changed, and how sure that is."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

CONFIDENCE = 0.95

Verdict = Literal["rises", "falls", "undecided"]


class Change(NamedTuple):
    """Change of a recorded number from initialisation to the end of training.

    Attributes
    ----------
    first, last
        Means over seeds at the two ends.
    mean
        Mean over seeds of each seed's own change.
    low, high
        Student-t interval of that mean at `CONFIDENCE`; NaN with fewer than two seeds.
    seeds, dropped
        Seeds that entered, and seeds left out because they were not finite at either end.
    verdict
        ``"rises"`` or ``"falls"`` if the interval leaves out 0.
    """

    first: float
    last: float
    mean: float
    low: float
    high: float
    seeds: int
    dropped: int
    verdict: Verdict


def change(values: xr.DataArray) -> Change:
    """Compare the ends of ``(step, member)``, seed by seed."""
    both = values.transpose("step", "member").values[[0, -1]].astype(np.float64)
    finite = np.isfinite(both).all(axis=0)
    first, last = both[:, finite]
    n = int(finite.sum())
    dropped = int(finite.size - n)
    if n == 0:
        nan = math.nan
        return Change(nan, nan, nan, nan, nan, 0, dropped, "undecided")
    difference = last - first
    mean = float(difference.mean())
    low = high = math.nan
    if n > 1:
        error = float(difference.std(ddof=1)) / math.sqrt(n)
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error
        low, high = mean - half, mean + half
    verdict: Verdict = "rises" if low > 0 else "falls" if high < 0 else "undecided"
    return Change(float(first.mean()), float(last.mean()), mean, low, high, n, dropped, verdict)


def sentence(label: str, ds: xr.Dataset) -> str:
    """Say what the entropy of one network does."""
    c = change(ds.entropy)
    n_probe = ds.entropy.attrs.get("n", "?")
    if c.seeds == 0:
        return f"{label}: no seed has a finite entropy at both ends of training."
    seeds = f"{c.seeds} seed" + "s" * (c.seeds > 1)
    if c.dropped:
        seeds += f", {c.dropped} left out because not finite"
    if c.verdict == "undecided":
        why = "one seed has no interval" if c.seeds == 1 else "the interval holds 0"
        does = f"neither clearly rises nor falls ({why})"
    else:
        does = c.verdict
    return (
        f"{label}: the entropy of the NTK {does}. It changes by {c.mean:+.3f} nat, from "
        f"{c.first:.3f} to {c.last:.3f} nat of at most ln {n_probe} = {_log(n_probe)} "
        f"(mean over {seeds}; {_interval(c)}). {_extremes(ds.entropy)}"
    )


def headline(changes: dict[str, Change]) -> str:
    """Say it for all networks in one sentence."""
    by_verdict: dict[str, list[str]] = {}
    for label, c in changes.items():
        by_verdict.setdefault(c.verdict, []).append(label)
    words = {
        "rises": "rises for {}",
        "falls": "falls for {}",
        "undecided": "has no clear direction for {}",
    }
    parts = [
        words[verdict].format(_and(by_verdict[verdict]))
        for verdict in ("rises", "falls", "undecided")
        if verdict in by_verdict
    ]
    what = "; it ".join(parts)
    return f"From initialisation to the end of training the entropy of the NTK {what}."


def numbers(label: str, ds: xr.Dataset) -> dict[str, Any]:
    """Give the same as JSON values; what is not finite becomes null."""
    found: dict[str, Any] = {"label": label, "run_id": ds.attrs.get("run_id")}
    for field in ("entropy", "effective_entropy", "trace", "loss", "accuracy"):
        found[field] = _plain(change(ds[field])._asdict())
    for field in ("loss_test", "accuracy_test"):
        found[field] = _plain(change(ds[field])._asdict())
    found["steps"] = [int(s) for s in ds.step.values]
    found["mean_entropy"] = _plain([float(v) for v in ds.entropy.mean("member").values])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _interval(c: Change) -> str:
    if c.seeds < 2:
        return "no interval from one seed"
    return f"{CONFIDENCE:.0%} interval of the change {c.low:+.3f} to {c.high:+.3f}"


def _extremes(entropy: xr.DataArray) -> str:
    mean = entropy.mean("member", skipna=True).values
    steps = entropy.step.values
    if not np.isfinite(mean).any():
        return ""
    top, bottom = int(np.nanargmax(mean)), int(np.nanargmin(mean))
    return (
        f"Its mean is highest at step {steps[top]} ({mean[top]:.3f} nat) and lowest at step "
        f"{steps[bottom]} ({mean[bottom]:.3f} nat)."
    )


def _log(n: Any) -> str:
    return f"{math.log(n):.3f}" if isinstance(n, (int, float)) and n > 0 else "?"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
