"""Basin hopping: many walkers that jump from minimum to minimum."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import jax
import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.landscape._follow import Follow
from ntkstats.landscape._pool import CONVERGED
from ntkstats.landscape._quench import Quench
from ntkstats.landscape._report import Report
from ntkstats.landscape._search import check_count, key_words, quenched

if TYPE_CHECKING:
    from ntkstats.landscape._landscape import Landscape
    from ntkstats.typing import Array


def hop(
    scape: Landscape,
    key: Array,
    walkers: int,
    steps: int,
    step: float,
    temperature: float,
    quench: Quench,
    polish: Follow,
) -> Report:
    """See `Landscape.hop`."""
    check_count("walkers", walkers)
    check_count("steps", steps)
    if not (step > 0 and temperature > 0):
        msg = f"step={step!r} and temperature={temperature!r}; expected positive numbers."
        raise LandscapeError(msg)
    words = key_words(key)
    spec = {
        "search": "hopping", "key": words, "walkers": walkers, "steps": steps, "step": step,
        "temperature": temperature, "quench": asdict(quench), "polish": asdict(polish),
    }  # fmt: skip
    run = scape.begin(spec)
    at = run.report.get("at", [-1] * walkers)  # ids of the minima where the walkers are
    while run.done < steps:
        rng = np.random.default_rng([*words, run.done])
        random = scape.problem.starts(jax.random.fold_in(key, run.done), walkers)
        here = np.array(
            [scape.points[i].theta if i >= 0 else s for i, s in zip(at, random, strict=True)]
        )
        settled = np.array(at) >= 0
        # A walker that is nowhere yet starts at random instead of moving.
        move = np.where(settled[:, None], step * rng.normal(size=here.shape), 0.0)
        found = quenched(scape.problem, here + move, quench, polish, walkers)
        arrived = found["status"] == CONVERGED
        other = int((found["index"][arrived] != 0).sum())
        report = Report.from_dict(run.report).plus(found["status"], 0, other)
        before = np.array([scape.points[i].energy if i >= 0 else np.inf for i in at])
        climb = found["energy"] - before
        with np.errstate(over="ignore"):
            accepted = rng.random(walkers) < np.exp(np.minimum(-climb / temperature, 0))
        run = run._replace(done=run.done + 1, report={**report.as_dict(), "at": list(at)})
        owner, new = scape.absorb(found, run)
        run.report["new"] += new
        for i in np.flatnonzero(arrived & accepted & (found["index"] == 0)):
            at[i] = int(owner[i])
        run.report["at"] = list(at)
    return Report.from_dict(run.report)
