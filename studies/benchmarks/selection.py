"""Selectors: a vectorised RND against loops, and the cost of a pick against its order.

*RND*: 20 seeds pick 50 of 500 digits, against loops as they are usually written. *Selectors*: 200
of 10,000 samples with 512 features against one product (N x s) by (s x N), and how the time grows
when N, k or s doubles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ntkstats import selection as sel
from ntkstats.typing import Array, Params
from studies.benchmarks import _rnd_loops
from studies.benchmarks._harness import alternate, seconds
from studies.benchmarks._rows import Cell, Row, Table
from studies.datasets import digits

QUESTION = (
    "RND: 20 seeds pick 50 of 500 digits (64-64-64-32 networks, vmap over seeds) against loops. "
    "Selectors: 200 of 10,000 samples with 512 features against one N x s x N product."
)
COLUMNS = {"ours": "ntkstats", "peer": "loop, or matrix product", "ratio": "ratio"}
NOTES = (
    "*rnd*: a Python loop over seeds and picks that compiles for every set size and keeps what it "
    "compiled for the other seeds; agents that do not keep it (one seed, times 20) have a column. "
    "*rnd_padded*: the same loop on arrays padded to 50, compiled once before the clock starts. "
    "Both rate the pool by both networks at every pick, as ZnNL does, and stop training by the "
    "rule that ours stops by. Ratios of RND rows say how many times faster ours is; our program "
    "is compiled before the clock starts, in the time that the table names.",
    "*growth* columns: time of one selection when one size doubles, over the time before. The "
    "orders stated in the docstrings allow 2 for O(N k s) and up to 4 where a term has k or s "
    "squared; the stated bar leaves a quarter for the machine. *columns alone* is a loop of k "
    "products of the features with a vector: how far the machine itself departs from the order.",
)
SEEDS, POOL, PICKS = 20, 500, 50
N, K, S = 10_000, 200, 512
RND_BAR, PADDED_BAR, PRODUCT_BAR = 20.0, 1.5, 4.0
SLACK = 1.25
WIDTHS = (64, 64, 64, 32)

LINEAR: dict[str, sel.Selector] = {
    "MaxDet": sel.MaxDet(),
    "RNDLimit": sel.RNDLimit(),
    "FarthestPoint": sel.FarthestPoint(),
    "LCMD": sel.LCMD(),
    "KMeansPP": sel.KMeansPP(),
    "MaxRenyi2": sel.MaxRenyi2(),
    "KernelHerding": sel.KernelHerding(),
    "MeanVariance": sel.MeanVariance(),
}
ORDERS: dict[str, tuple[float, float, float]] = {name: (2.0, 2.0, 2.0) for name in LINEAR}
"""By how much the time may grow when N, k, s doubles."""
for _name in ("MaxDet", "RNDLimit", "MeanVariance"):
    ORDERS[_name] = (2.0, 4.0, 2.0)
ORDERS["MeanVariance"] = (2.0, 4.0, 4.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which rows to measure."""
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="some rows")


def run(options: argparse.Namespace) -> Iterator[tuple[str | None, Table]]:
    """Measure the rows; the file keeps the others, unless all are measured anew."""
    every = set(options.rows) == set(ROWS)
    for number, name in enumerate(options.rows):
        first = every and number == 0
        yield "selection", Table(ROWS[name](), COLUMNS, QUESTION, notes=NOTES, whole=first)


def init(key: Array) -> Params:
    """He initialisation of the networks."""
    keys = jax.random.split(key, len(WIDTHS) - 1)
    pairs = zip(keys, WIDTHS[:-1], WIDTHS[1:], strict=True)
    return [(jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, jnp.zeros(b)) for k, a, b in pairs]


def apply(params: Params, x: Array) -> Array:
    """ReLU network."""
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def _ours() -> tuple[Callable[[], Any], Array, Array, float]:
    """All seeds as one program, the pool and keys, and the seconds it took to compile."""
    x = jnp.asarray(digits().x_train[:POOL].reshape(POOL, -1))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    selector = sel.RND(
        init,
        apply,
        optimizer=_rnd_loops.OPTIMIZER,
        until=_rnd_loops.UNTIL,
        max_steps=_rnd_loops.MAX_STEPS,
        check_every=_rnd_loops.CHECK_EVERY,
    )
    pool = sel.Pool(x=x)
    program = jax.jit(jax.vmap(lambda key: sel.select(selector, key, pool, PICKS)))
    start = time.perf_counter()
    compiled = program.lower(keys).compile()
    return partial(compiled, keys), x, keys, time.perf_counter() - start


def rnd_row() -> list[Row]:
    """Against a loop that compiles for every set size."""
    ours, x, keys, compilation = _ours()

    functions = _rnd_loops.compiled(apply)

    def loop(functions: _rnd_loops.Functions, keys: Array) -> Any:
        return [_rnd_loops.select(functions, init, key, x, PICKS, padded=False) for key in keys]

    seconds(ours)
    peer = seconds(partial(loop, functions, keys))
    alone = seconds(partial(loop, _rnd_loops.compiled(apply), keys[:1])) * SEEDS
    mine = statistics.median(seconds(ours) for _ in range(5))
    more = {
        "compiling ours": Cell(compilation, "s"),
        "times faster, compiling ours included": Cell(peer / (mine + compilation)),
        "times faster than a new program for every seed": Cell(alone / mine),
    }
    case = f"rnd: {SEEDS} seeds, {PICKS} of {POOL}"
    return [Row(case, mine, peer, peer / mine, RND_BAR, at_least=True, more=more)]


def padded_row() -> list[Row]:
    """Against a padded loop over seeds, compiled once."""
    ours, x, keys, compilation = _ours()
    functions = _rnd_loops.compiled(apply)

    def loop() -> Any:
        return [_rnd_loops.select(functions, init, key, x, PICKS, padded=True) for key in keys]

    row = alternate("", loop, ours, bar=0.0, repeats=5)
    more = {"compiling ours": Cell(compilation, "s")}
    assert row.peer is not None
    case = f"rnd_padded: {SEEDS} seeds, {PICKS} of {POOL}"
    return [Row(case, row.peer, row.ours, row.ratio, PADDED_BAR, at_least=True, more=more)]


def selecting(selector: sel.Selector, n: int, k: int, s: int) -> Callable[[], Any]:
    """A selection from random features; compiled at its first call."""
    phi = jax.random.normal(jax.random.key(1), (n, s))
    scale = jax.random.uniform(jax.random.key(2), (n, 1), minval=0.5, maxval=2.0)
    pool = sel.Pool(kernel=sel.linear(phi * scale))
    return lambda: sel.select(selector, jax.random.key(0), pool, k)


def linear_rows() -> list[Row]:
    """O(N k s) selectors against one matrix product."""
    phi = jax.random.normal(jax.random.key(1), (N, S))
    product = partial(jax.jit(lambda phi: jnp.sum(phi @ phi.T, axis=1)), phi)
    return [
        alternate(
            f"{name}: {K} of {N}, s={S}",
            selecting(selector, N, K, S),
            product,
            bar=PRODUCT_BAR,
            repeats=3,
        )
        for name, selector in LINEAR.items()
    ]


def columns(n: int, k: int, s: int) -> Callable[[], Any]:
    """What every selector does at least: k kernel columns, one after another."""
    phi = jax.random.normal(jax.random.key(1), (n, s))

    @jax.jit
    def run(phi: Array) -> Array:
        def add(i: Array, total: Array) -> Array:
            return jnp.maximum(total, phi @ phi[i])

        return jax.lax.fori_loop(0, k, add, jnp.zeros(n))

    return partial(run, phi)


def growth_rows() -> list[Row]:
    """Time of a selection when a size doubles, and of its columns alone, which have no bar."""
    # Features of 40 MB and more: an edge of a cache between two sizes would pass for an order.
    small = (2 * N, K // 2, S)
    rows = [_growth("columns alone", columns, small, None)]
    for name, selector in LINEAR.items():
        rows.append(_growth(name, partial(selecting, selector), small, ORDERS[name]))
    return rows


def _growth(
    name: str,
    make: Callable[..., Callable[[], Any]],
    small: tuple[int, int, int],
    orders: tuple[float, float, float] | None,
) -> Row:
    base = make(*small)
    grown = [make(*(v * (1 + (i == j)) for j, v in enumerate(small))) for i in range(3)]
    for fn in (base, *grown):
        seconds(fn)
    samples = [(seconds(base), *(seconds(fn) for fn in grown)) for _ in range(5)]
    ratios = [statistics.median(s[i + 1] / s[0] for s in samples) for i in range(3)]
    bars = (None,) * 3 if orders is None else tuple(SLACK * order for order in orders)
    more = {
        f"growth with {size}": Cell(ratio, bar=bar)
        for size, ratio, bar in zip("Nks", ratios, bars, strict=True)
    }
    mine, twice = (statistics.median(s[i] for s in samples) for i in (0, 1))
    n, k, s = small
    return Row(f"{name}: growth from N={n}, k={k}, s={s}", mine, twice, mine / twice, more=more)


ROWS: dict[str, Callable[[], list[Row]]] = {
    "rnd": rnd_row,
    "rnd_padded": padded_row,
    "linear": linear_rows,
    "growth": growth_rows,
}
