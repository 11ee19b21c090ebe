"""The tolerance loop on atomic environments, against random sets and RND of the same sizes.

In the spirit of Sivaraman et al. (2020): environments are clustered, a Gaussian process learns from
every w-th of each cluster for smaller and smaller w, until the error on their neighbours is within
a tolerance. The rows of the table are no trajectory, so a cluster is ordered by the distance to its
medoid: a stride takes from its core as from its rim.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ntkstats import selection as sel
from studies._progress import Update
from studies.data_selection._case import SPLITS, clusters, nearest
from studies.data_selection._networks import dense
from studies.data_selection._selectors import rnd
from studies.data_selection._tiers import Atoms, Picking
from studies.datasets import load

LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Length scales tried, in median distances."""

NOISES = (1e-3, 1e-2, 1e-1)
"""Noise variances tried, in variances of the target."""

MINORITY = 0.2
"""The smallest clusters that hold at most this share of the pool are the minority."""

METHODS = ("strides", "random", "RND", "MaxDet")


class Split(NamedTuple):
    """One split of the environments, rows of each cluster in order.

    Attributes
    ----------
    x, y
        Pool ``(N, d)``, ``(N,)``.
    x_test, y_test
        Held out.
    clusters
        ``(N,)`` of the pool.
    minority
        ``(M,)`` True for test rows next to a small cluster.
    key
        Of everything that picks.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    clusters: np.ndarray
    minority: np.ndarray
    key: Any


def tolerance_loop(
    plan: Atoms, picking: Picking, seed: int, update: Update
) -> dict[str, np.ndarray]:
    """All rounds of all splits.

    ``sizes`` and ``neighbours`` are ``(repeats, rounds)``: samples and the error on their
    neighbours; ``stop`` ``(repeats,)`` is the round at which the loop ends (-1 if it does not).
    ``test/METHOD``, ``minority/METHOD`` and ``majority/METHOD`` ``(repeats, rounds)`` are errors
    on held-out environments. All errors are root mean squares, in deviations of the target.
    """
    rows = []
    for repeat in range(plan.repeats):
        rows.append(_repeat(plan, picking, split_of(plan, seed, repeat)))
        update(repeat + 1, plan.repeats)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def split_of(plan: Atoms, seed: int, repeat: int) -> Split:
    """Split, cluster and order the environments."""
    data: Any = load(plan.dataset, seed=seed * SPLITS + repeat)
    key = jax.random.fold_in(jax.random.key(seed), repeat)
    # Descriptors keep their relative sizes: those that hardly vary would be blown up to noise.
    scale = (data.x_std / np.sqrt(np.mean(data.x_std**2))).astype(np.float32)
    pool, test = data.x_train * scale, data.x_test * scale
    label, distance = clusters(pool, plan.clusters, jax.random.fold_in(key, 1))
    order = np.lexsort((distance, label))
    x, label = pool[order], label[order]
    return Split(
        x,
        data.y_train[order, 0],
        test,
        data.y_test[:, 0],
        label,
        minority_of(x, label, test),
        key,
    )


def minority_of(x: np.ndarray, label: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Test rows whose nearest row of the pool is in one of the smallest clusters."""
    names, counts = np.unique(label, return_counts=True)
    by_size = np.argsort(counts, kind="stable")
    small = names[by_size][np.cumsum(counts[by_size]) <= MINORITY * len(x)]
    closest, _ = nearest(x_test, x)
    return np.isin(label[closest], small)


def _repeat(plan: Atoms, picking: Picking, split: Split) -> dict[str, np.ndarray]:
    everything = sel.until_tolerance(
        lambda train, test: error(split, train, split.x[test], split.y[test]),
        split.clusters,
        tolerance=0.0,
        strides=plan.strides,
        key=split.key,
    )
    rounds = everything.rounds
    sizes = [len(r.split.train) for r in rounds]
    orders = dict(_orders(split, picking, max(sizes)))
    found: dict[str, list[float]] = {
        f"{part}/{name}": [] for part in ("test", "minority", "majority") for name in METHODS
    }
    for number, (one, size) in enumerate(zip(rounds, sizes, strict=True)):
        sets = {"strides": [one.split.train]}
        sets |= {name: [order[:size]] for name, order in orders.items()}
        sets["random"] = [
            np.random.default_rng((number, draw, *_words(split.key))).permutation(len(split.x))[
                :size
            ]
            for draw in range(plan.draws)
        ]
        for name, listed in sets.items():
            of_parts = np.mean([_errors(split, chosen) for chosen in listed], axis=0)
            for part, value in zip(("test", "minority", "majority"), of_parts, strict=True):
                found[f"{part}/{name}"].append(value)
    errors = [r.error for r in rounds]
    # The loop as it is: it ends at the first round within the tolerance, after two at least.
    stop = next((i for i, e in enumerate(errors) if e <= plan.tolerance and i >= 1), -1)
    return {
        "sizes": np.array(sizes),
        "neighbours": np.array(errors),
        "stop": np.array(stop),
        **{name: np.array(values) for name, values in found.items()},
    }


def _orders(split: Split, picking: Picking, most: int) -> Iterator[tuple[str, np.ndarray]]:
    network = dense((split.x.shape[1], picking.width, picking.width, picking.outputs))
    pool = sel.Pool(x=split.x)
    by_error = rnd(network, picking.until, picking.max_steps)
    yield "RND", np.asarray(sel.select(by_error, split.key, pool, most).indices)
    length = _median_distance(split.x)
    kernel = sel.Pool(kernel=sel.dense(_rbf(split.x, split.x, length).astype(np.float32)))
    yield "MaxDet", np.asarray(sel.select(sel.MaxDet(), split.key, kernel, most).indices)


def _words(key: Any) -> list[int]:
    return [int(v) for v in jax.random.key_data(key)]


def _errors(split: Split, train: np.ndarray) -> tuple[float, float, float]:
    """On all held-out rows, on those of the minority, and on the others."""
    residual = predict(split, train, split.x_test) - split.y_test
    parts = (residual, residual[split.minority], residual[~split.minority])
    all_, few, many = (float(np.sqrt(np.mean(r**2))) if r.size else np.nan for r in parts)
    return all_, few, many


def error(split: Split, train: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Root mean square error of a Gaussian process."""
    return float(np.sqrt(np.mean((predict(split, train, x) - y) ** 2)))


def predict(split: Split, train: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Mean of a Gaussian process; length and noise have the largest marginal likelihood."""
    known, y = split.x[train], split.y[train]
    level, scale = y.mean(), y.std() or 1.0
    target = (y - level) / scale
    base = _median_distance(known)
    best: tuple[float, Any, Any, float] | None = None
    for length, noise in product(LENGTHS, NOISES):
        kernel = _rbf(known, known, length * base) + noise * np.eye(len(train))
        factor = cho_factor(kernel, lower=True)
        weights = cho_solve(factor, target)
        evidence = -0.5 * target @ weights - np.log(np.diag(factor[0])).sum()
        if best is None or evidence > best[0]:
            best = (float(evidence), weights, known, length * base)
    assert best is not None
    _, weights, known, length = best
    return np.asarray(level + scale * _rbf(x, known, length) @ weights)


def _rbf(x: np.ndarray, y: np.ndarray, length: float) -> np.ndarray:
    return np.asarray(np.exp(-_squared(x, y) / (2 * length**2)))


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0)


def _median_distance(x: np.ndarray) -> float:
    apart = np.sqrt(_squared(x, x)[np.triu_indices(len(x), 1)])
    positive = apart[apart > 0]
    return float(np.median(positive)) if positive.size else 1.0
