"""Every selector of the league, and the variants of RND."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkstats import selection as sel
from ntkstats.typing import Array
from studies._errors import StudyError
from studies.data_selection._case import Case, clusters, prior
from studies.data_selection._networks import Network
from studies.data_selection._tiers import Picking

ADAM = optax.adam(1e-3)


class Entry(NamedTuple):
    """A selector in the league.

    Attributes
    ----------
    make
        ``make(case, picking)``: the selector.
    kernel
        Over which kernel: ``"ntk"``, ``"normalised"`` (the NTK without lengths) or ``"inputs"``.
    classes
        Whether it only works for classes.
    """

    make: Callable[[Case, Picking], sel.Selector]
    kernel: str = "ntk"
    classes: bool = False


def _plain(selector: sel.Selector) -> Callable[[Case, Picking], sel.Selector]:
    return lambda case, picking: selector  # noqa: ARG005 - one signature for all


@cache
def rnd(network: Network, until: float, max_steps: int, **options: Any) -> sel.RND:
    """One object for equal settings, so that programs are shared."""
    options = {"optimizer": ADAM, **options}
    return sel.RND(network.init, network.apply, until=until, max_steps=max_steps, **options)


LEAGUE: Mapping[str, Entry] = MappingProxyType(
    {
        "RND": Entry(lambda c, p: rnd(c.distilled, p.until, p.max_steps)),
        "RNDLimit": Entry(_plain(sel.RNDLimit())),
        "MaxDet": Entry(_plain(sel.MaxDet())),
        "MaxDet, normalised": Entry(_plain(sel.MaxDet()), "normalised"),
        "MeanVariance": Entry(_plain(sel.MeanVariance())),
        "MaxRenyi2": Entry(_plain(sel.MaxRenyi2())),
        "MaxEntropy": Entry(_plain(sel.MaxEntropy())),
        "MaxNorm": Entry(_plain(sel.MaxNorm())),
        "FarthestPoint": Entry(_plain(sel.FarthestPoint())),
        "FarthestPoint, inputs": Entry(_plain(sel.FarthestPoint()), "inputs"),
        "LCMD": Entry(_plain(sel.LCMD())),
        "KMeansPP": Entry(_plain(sel.KMeansPP())),
        "KMedoids": Entry(_plain(sel.KMedoids())),
        "FacilityLocation": Entry(_plain(sel.FacilityLocation())),
        "KernelHerding": Entry(_plain(sel.KernelHerding())),
        "ClusterStratified": Entry(_plain(sel.ClusterStratified())),
        "ByBatch, MaxDet": Entry(_plain(sel.ByBatch(sel.MaxDet(), size=5))),
        "Stratified": Entry(_plain(sel.Stratified()), classes=True),
        "PerClass, FacilityLocation": Entry(
            _plain(sel.PerClass(sel.FacilityLocation())), classes=True
        ),
        "EL2N": Entry(
            lambda c, p: sel.EL2N(c.network.init, c.network.apply),  # noqa: ARG005
            classes=True,
        ),
        "GradNorm": Entry(
            lambda c, p: sel.GradNorm(c.network.init, c.network.apply),  # noqa: ARG005
            classes=True,
        ),
    }
)
"""Everything but `Random`, which is the baseline."""

USES_LABELS = ("Stratified", "PerClass, FacilityLocation", "EL2N", "GradNorm")
"""Those that look at labels of the whole pool: compare them with one another."""


def pool_of(case: Case, kernel: Any, selector: sel.Selector, picking: Picking) -> sel.Pool:
    """What the selector asks for and no more, so that programs of equal shapes are shared."""
    x, y = case.pool
    parts: dict[str, Any] = {}
    keys = jax.random.split(jax.random.fold_in(case.key, 1), 2)
    for name in selector.requires:
        if name == "x":
            parts["x"] = jnp.asarray(x)
        elif name == "y":
            parts["y"] = jnp.asarray(y)
        elif name == "kernel":
            parts["kernel"] = kernel
        elif name == "clusters":
            parts["clusters"] = jnp.asarray(clusters(x, picking.clusters, keys[0])[0])
    if isinstance(selector, sel.RNDLimit):
        parts["prior"] = prior(case, picking.prior_outputs, keys[1])
    return sel.Pool(**parts)


def kernel_named(name: str, case: Case, members: list[Any]) -> Any:
    """The kernel that an entry picks by: of the NTK the mean over all networks."""
    if name == "inputs":
        return sel.linear(case.pool[0])
    mean = sel.dense(jnp.mean(jnp.stack([m.matrix for m in members]), axis=0))
    return sel.dense(_normalised(mean.matrix)) if name == "normalised" else mean


def _normalised(matrix: Array) -> Array:
    scaled = sel.normalised(sel.dense(matrix))
    return scaled.scale[:, None] * matrix * scaled.scale  # type: ignore[attr-defined]


class Picked(NamedTuple):
    """Sets of one repeat.

    Attributes
    ----------
    names
        Of the selectors, `RANDOM` as often as it was drawn.
    sets
        ``{k: (selectors, k)}``.
    seconds
        ``(selectors,)`` of the largest set; a first run compiles in that time.
    """

    names: list[str]
    sets: dict[int, np.ndarray]
    seconds: list[float]


RANDOM = "Random"


def pick_all(
    case: Case, members: list[Any], budgets: tuple[int, ...], draws: int, picking: Picking
) -> Picked:
    """Sets of all selectors that the case allows, and random ones."""
    names = [RANDOM] * draws
    at_random = random_sets(case, budgets, draws)
    found = {k: list(at_random[k]) for k in budgets}
    seconds = [0.0] * draws
    by_name = {kind: kernel_named(kind, case, members) for kind in ("ntk", "normalised", "inputs")}
    for number, (name, entry) in enumerate(LEAGUE.items()):
        if entry.classes and not case.classes:
            continue
        selector = entry.make(case, picking)
        pool = pool_of(case, by_name[entry.kernel], selector, picking)
        key = jax.random.fold_in(case.key, 2 + number)
        start = time.perf_counter()
        sets = prefixes(selector, key, pool, budgets)
        seconds.append(time.perf_counter() - start)
        names.append(name)
        for k in budgets:
            found[k].append(sets[k])
    return Picked(names, {k: np.stack(found[k]) for k in budgets}, seconds)


def prefixes(
    selector: sel.Selector, key: Array, pool: sel.Pool, budgets: tuple[int, ...]
) -> dict[int, np.ndarray]:
    """A set of every size; of nested selectors from one run."""
    if not selector.nested:
        return {k: _picks(selector, key, pool, k) for k in budgets}
    order = _picks(selector, key, pool, max(budgets))
    return {k: order[:k] for k in budgets}


def _picks(selector: sel.Selector, key: Array, pool: sel.Pool, k: int) -> np.ndarray:
    picked = sel.select(selector, key, pool, k)
    if int(picked.count) < k:
        msg = (
            f"{selector!r:.80} stopped after {int(picked.count)} of {k} picks: its scores are not "
            "finite. A predictor that diverges needs a smaller step size."
        )
        raise StudyError(msg)
    return np.asarray(picked.indices)


def random_sets(case: Case, budgets: tuple[int, ...], draws: int) -> dict[int, np.ndarray]:
    """``(draws, k)`` random sets of every size; smaller ones are not parts of larger ones."""
    pool = sel.Pool(x=jnp.asarray(case.pool[0]))
    found = {}
    for number, k in enumerate(budgets):
        keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(case.key, 0), number), draws)
        pick = jax.vmap(lambda key, k=k: sel.select(sel.Random(), key, pool, k).indices)
        found[k] = np.asarray(pick(keys))
    return found
