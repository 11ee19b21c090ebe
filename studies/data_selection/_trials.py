"""What each piece of work does: the league, the random sets, the variants of RND."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkstats import selection as sel
from ntkstats.typing import Array
from studies._progress import Progress, Update
from studies.data_selection._atoms import tolerance_loop
from studies.data_selection._case import Case, case, kernels, prior
from studies.data_selection._config import Trial
from studies.data_selection._measure import keep, measure, stacked
from studies.data_selection._networks import dense, limit_kernels, wide
from studies.data_selection._selectors import (
    RANDOM,
    kernel_named,
    pick_all,
    prefixes,
    random_sets,
    rnd,
)
from studies.data_selection._tiers import Ablations, Picking, Sizes, case_named


def run(trial: Trial, folder: Path, progress: Progress) -> None:
    """Leave the numbers of a trial in the folder."""
    with progress.bar(trial.label) as update:
        keep(folder, _WORK[trial.question](trial, update))


def _league(trial: Trial, update: Update) -> dict[str, np.ndarray]:
    """``k/NAME`` is ``(repeats, selectors, seeds)``; random sets come first."""
    sizes = case_named(trial.sizes, trial.dataset, trial.network)
    picking = trial.sizes.picking
    rows, seconds, names = [], [], []
    for repeat in range(sizes.repeats):
        made = case(sizes, picking, trial.seed, repeat)
        members = kernels(made)
        picked = pick_all(made, members, sizes.budgets, sizes.draws, picking)
        rows.append(_scores(made, sizes, members, picked.sets))
        seconds.append(np.array(picked.seconds))
        names = picked.names
        update(repeat + 1, sizes.repeats)
    return {"names": np.array(names), "seconds": np.stack(seconds), **stacked(rows)}


def _starts(trial: Trial, update: Update) -> dict[str, np.ndarray]:
    """Random sets alone: ``k/NAME`` is ``(splits, sets, seeds)``."""
    sizes = case_named(trial.sizes, trial.dataset, trial.network)
    rows = []
    for split in range(sizes.splits):
        made = case(sizes, trial.sizes.picking, trial.seed, split)
        sets = random_sets(made, sizes.start_budgets, sizes.starts)
        rows.append(_scores(made, sizes, kernels(made), sets))
        update(split + 1, sizes.splits)
    return stacked(rows)


def _scores(
    made: Case, sizes: Sizes, members: list[Any], sets: dict[int, np.ndarray]
) -> dict[str, np.ndarray]:
    return {
        f"{k}/{name}": value
        for k, chosen in sets.items()
        for name, value in measure(made, sizes, members, chosen).items()
    }


class Variant(NamedTuple):
    """One way to pick.

    Attributes
    ----------
    group, value
        What varies, and how.
    selector, pool
        What is picked with, from what.
    """

    group: str
    value: str
    selector: sel.Selector
    pool: sel.Pool


def _ablations(trial: Trial, update: Update) -> dict[str, np.ndarray]:
    """Of every variant the scores, and how far its picks repeat and are those of the limit.

    ``k/NAME`` is ``(repeats, variants, seeds)``, random sets first; ``k/again`` and ``k/limit``
    ``(repeats, variants)`` are shares of picks in common with another seed of the variant and
    with `RNDLimit` of infinitely wide networks of one layer.
    """
    plan = trial.sizes.ablations
    sizes = case_named(trial.sizes, trial.dataset, trial.network)
    rows, groups, values = [], [], []
    for repeat in range(plan.repeats):
        made = case(sizes, trial.sizes.picking, trial.seed, repeat)
        members = kernels(made)
        at_random = random_sets(made, plan.budgets, sizes.draws)
        found = {k: list(at_random[k]) for k in plan.budgets}
        again: dict[int, list[float]] = {k: [np.nan] * sizes.draws for k in plan.budgets}
        near: dict[int, list[float]] = {k: [np.nan] * sizes.draws for k in plan.budgets}
        limit = prefixes(sel.RNDLimit(), made.key, _limit_pool(made), plan.budgets)
        groups, values = ["random"] * sizes.draws, [RANDOM] * sizes.draws
        for number, variant in enumerate(variants(made, members, plan, trial.sizes.picking)):
            groups.append(variant.group)
            values.append(variant.value)
            keys = jax.random.split(jax.random.fold_in(made.key, 100 + number), 2)
            one, other = (
                prefixes(variant.selector, key, variant.pool, plan.budgets) for key in keys
            )
            for k in plan.budgets:
                found[k].append(one[k])
                again[k].append(_shared(one[k], other[k]))
                near[k].append(_shared(one[k], limit[k]))
        row = _scores(made, sizes, members, {k: np.stack(found[k]) for k in plan.budgets})
        row |= {f"{k}/again": np.array(again[k]) for k in plan.budgets}
        row |= {f"{k}/limit": np.array(near[k]) for k in plan.budgets}
        rows.append(row)
        update(repeat + 1, plan.repeats)
    return {"groups": np.array(groups), "values": np.array(values), **stacked(rows)}


def variants(
    made: Case, members: list[Any], plan: Ablations, picking: Picking
) -> Iterator[Variant]:
    """RND with one thing changed, and what has no norms."""
    x = jnp.asarray(made.pool[0])
    inputs = int(np.prod(x.shape[1:]))
    pool = sel.Pool(x=x)

    def net(outputs: int) -> Any:
        return dense((inputs, picking.width, picking.width, outputs))

    def base(outputs: int = picking.outputs, **options: Any) -> sel.RND:
        options = {"until": picking.until, "max_steps": picking.max_steps, **options}
        return rnd(net(outputs), **options)

    yield Variant("RND", "as it is", base(), pool)
    for until in plan.until:
        # A smaller threshold needs more updates to be reached.
        steps = picking.max_steps * (3 if until < picking.until else 1)
        yield Variant("threshold", f"{until:g}", base(until=until, max_steps=steps), pool)
    for outputs in plan.outputs:
        yield Variant("outputs", f"{outputs}", base(outputs), pool)
    for pairs in plan.pairs:
        yield Variant("pairs", f"{pairs}", base(pairs=pairs), pool)
    yield Variant("start", "restart", base(restart=True), pool)
    network = net(picking.outputs)
    yield Variant("preset", "ZnNL", sel.RND.znnl(network.init, network.apply), pool)
    yield Variant("norm", "RND, unit inputs", base(), sel.Pool(x=_unit(x)))
    ntk, flat = (kernel_named(name, made, members) for name in ("ntk", "normalised"))
    yield Variant("norm", "MaxDet", sel.MaxDet(), sel.Pool(kernel=ntk))
    yield Variant("norm", "MaxDet, normalised", sel.MaxDet(), sel.Pool(kernel=flat))
    nngp = prior(made, picking.prior_outputs, jax.random.fold_in(made.key, 99))
    both = sel.Pool(kernel=ntk, prior=nngp)
    yield Variant("norm", "RNDLimit", sel.RNDLimit(), both)
    yield Variant(
        "norm", "RNDLimit, normalised", sel.RNDLimit(),
        sel.Pool(kernel=flat, prior=sel.normalised(nngp)),
    )  # fmt: skip
    for width in plan.widths:
        selector = rnd(
            wide(inputs, width, picking.outputs), picking.until, 4 * picking.max_steps,
            optimizer=_descent(picking.outputs),
        )  # fmt: skip
        yield Variant("width", f"{width}", selector, pool)
    yield Variant("width", "limit", sel.RNDLimit(), _limit_pool(made))


def _limit_pool(made: Case) -> sel.Pool:
    ntk, nngp = limit_kernels(jnp.asarray(made.pool[0]))
    return sel.Pool(kernel=sel.dense(ntk), prior=sel.dense(nngp))


_DESCENTS: dict[int, optax.GradientTransformation] = {}


def _descent(outputs: int) -> optax.GradientTransformation:
    """Gradient descent, whose limit is known; the loss is a mean over outputs, so is its rate."""
    return _DESCENTS.setdefault(outputs, optax.sgd(0.005 * outputs, momentum=0.9))


def _unit(x: Array) -> Array:
    flat = x.reshape(x.shape[0], -1)
    norm = jnp.linalg.norm(flat, axis=1, keepdims=True)
    return (flat / jnp.where(norm > 0, norm, 1) * flat.shape[1] ** 0.5).reshape(x.shape)


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.isin(one, other).mean())


def _atoms(trial: Trial, update: Update) -> dict[str, np.ndarray]:
    return tolerance_loop(trial.sizes.atoms, trial.sizes.picking, trial.seed, update)


_WORK = {"league": _league, "starts": _starts, "ablations": _ablations, "atoms": _atoms}
