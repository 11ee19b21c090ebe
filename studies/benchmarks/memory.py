"""Peak memory of a kernel against the budget it was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

import ntkstats as nts
from ntkstats import kernels
from studies.benchmarks import _systems
from studies.benchmarks._memory import peak_bytes
from studies.benchmarks._rows import Row
from studies.benchmarks._systems import System

QUESTION = (
    "Peak resident memory of one trace kernel beyond what the process holds before it, against "
    "`budget_bytes`, by either engine."
)
COLUMNS = ("peak", "budget")
BAR = 1.3
MIB = 2**20

CASES: dict[str, tuple[Callable[[], System], int, str]] = {
    "mlp": (partial(_systems.mlp, (256, 256), n=60), 200, "reference"),
    "wide mlp": (partial(_systems.mlp, (512, 512), n=40), 300, "reference"),
    "long mlp": (partial(_systems.mlp, (64,), n=500), 100, "reference"),
    "cnn": (partial(_systems.cnn, 16, n=100), 150, "reference"),
    "structured cnn": (partial(_systems.cnn, 16, n=100), 150, "structured"),
    "small budget": (partial(_systems.cnn, 16, n=100), 60, "structured"),
}


def prepare(case: str) -> Callable[[], Any]:
    """The compiled kernel of a case, ready to be called once."""
    make, budget, method = CASES[case]
    system = make()
    model = nts.as_model(system.apply)
    params, state = model.split(system.init(jax.random.key(0)))
    options: dict[str, Any] = {"outputs": "trace", "method": method, "budget_bytes": budget * MIB}
    plan = kernels.plan(model, params, state, system.x, **options)
    compiled = jax.jit(lambda p, x: plan.gram(p, state, x).matrix).lower(params, system.x).compile()
    return partial(compiled, params, system.x)


def run() -> list[Row]:
    """Measure every case in a process of its own."""
    rows = []
    for case, (make, budget, method) in CASES.items():
        peak = peak_bytes(partial(prepare, case)) / MIB
        name = f"{make().name}, {method}, budget {budget} MiB"
        rows.append(Row(name, peak, float(budget), peak / budget, BAR, "MiB"))
    return rows
