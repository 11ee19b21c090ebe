"""One of several processes that compute kernels together over a loopback connection.

Run with two host devices, as ``python -m tests.kernels.sharded_process RANK COUNT PORT PATH fast``.
Writes to files the rows that lie on this process's devices, and what else there is to know.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

if __name__ == "__main__":
    RANK, COUNT, PORT = map(int, sys.argv[1:4])
    # Before anything is computed, which happens already where cases are imported.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{PORT}", num_processes=COUNT, process_id=RANK)

from ntkstats import kernels
from ntkstats.errors import NtkStatsError
from ntkstats.models import Probe

from ..effort import Effort
from .sharded_cases import KEY, Case, other, system
from .sharded_child import computed, facts, mesh

FAST = {
    "tiles": Case("mlp", 4, n=11, cut="tiles", weighted=True),
    # One process with two devices, one with one.
    "uneven": Case("mlp", 3, outputs="trace", n=8),
    "cross": Case("mlp", 4, outputs="trace", n=11, cross="inputs"),
    "parameters": Case("mlp", 4, "parameters", "trace", n=8),
    "own": Case("mlp", 4, outputs="trace", n=8),
}
SLOW = {
    "rows": Case("mlp", 4),
    "convolution": Case("cnn_pooling", 3, outputs="trace"),
    "probe": Case("mlp", 4, outputs="probe", method="reference", weighted=True),
    "cross_tiles": Case("mlp", 3, n=11, cross="inputs", cut="tiles"),
    "cross_moment": Case("mlp", 3, outputs="sum", cross="moment"),
    "parameters_reference": Case("mlp", 4, "parameters", method="reference"),
    "own_wide": Case("mlp", 4, n=8, precision="float64"),
}
OWN = ("own", "own_wide")
"""Cases in which a process has no samples but its own."""

DIFFERENT: dict[str, dict[str, Any]] = {
    "samples": {"n": 7},
    "weights": {"weighted": True},
    "outputs": {"outputs": "sum"},
    "average": {"average_outputs": True},
    "key": {"key": jax.random.key(1)},
    "budget": {"budget_bytes": 2**13},
    "method": {"method": "reference"},
    "precision": {"precision": "float64"},
    "shard": {"shard": "parameters"},
    "cross": {"cross": "inputs"},
}
"""What the last process gives otherwise than the others do."""

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "method": ({"method": "magic"}, "KernelError", "expected one of"),
    "shard": ({"shard": "columns"}, "KernelError", "expected one of"),
    "budget": ({"budget_bytes": 100}, "BudgetError", "Raise budget_bytes"),
    "inputs": ({"scale": np.inf}, "ProbeError", "not finite"),
}
"""What the last process gives that is wrong, and what it is told."""


def of_own_samples(case: Case) -> kernels.KernelMatrix:
    """The kernel of a case from inputs that are spread over the processes."""
    s = system(case)
    # A mesh as JAX makes it unless told otherwise: types of arrays name its axis.
    sharding = NamedSharding(jax.make_mesh((case.devices,), ("samples",)), PartitionSpec("samples"))
    each = len(s.x) // jax.process_count()
    mine = s.x[jax.process_index() * each :][:each]
    x = jax.make_array_from_process_local_data(sharding, mine)
    assert not x.is_fully_addressable
    return kernels.empirical_ntk(
        s.model,
        s.params,
        s.state,
        x,
        outputs=case.outputs,
        precision=case.precision,
        mesh=mesh(case.devices),
    )


def told(name: str, changes: dict[str, Any]) -> list[str]:
    """The error that this process gets if the last one calls otherwise."""
    print(name, file=sys.stderr, flush=True)
    case = FAST["own"]
    given: dict[str, Any] = {"n": case.n, "outputs": "trace", "key": KEY}
    if name == "key":
        given["outputs"] = "probe"
    if jax.process_index() == jax.process_count() - 1:
        given |= changes
    s = system(case)
    x = s.x[: given.pop("n")] * given.pop("scale", 1)
    weight = np.ones(len(x)) if given.pop("weighted", False) else None
    if "cross" in given:
        given["cross"] = other(case._replace(cross=given["cross"])).x
    probe = x if weight is None else Probe(x, weight=weight)
    arguments = s.model, s.params, s.state, probe
    return error_of(lambda: kernels.empirical_ntk(*arguments, mesh=mesh(4), **given))


def outside() -> list[str]:
    """The error of a process none of whose devices take part."""
    return error_of(lambda: computed(Case("mlp", 2)) if jax.process_index() > 0 else None)


def error_of(call: Callable[[], object]) -> list[str]:
    """Class and message."""
    try:
        call()
    except NtkStatsError as error:
        return [type(error).__name__, str(error)]
    return ["none", ""]


def shards(K: kernels.KernelMatrix) -> list[tuple[int, np.ndarray]]:
    """First row and numbers of every part on a device of this process."""
    return [(part.index[0].start or 0, part.data) for part in K.matrix.addressable_shards]


def main(path: str, which: str) -> None:
    """Do the part of one process."""
    Effort().set(optimised=which == "slow")
    report: dict[str, Any] = {"devices": len(jax.devices()), "cases": {}}
    arrays: dict[str, np.ndarray] = {}
    for name, case in {"fast": FAST, "slow": SLOW}[which].items():
        print(name, file=sys.stderr, flush=True)  # who waits says where
        K = of_own_samples(case) if name in OWN else computed(case)
        found = shards(K)
        report["cases"][name] = facts(K) | {"starts": [start for start, _ in found]}
        arrays |= {f"{name}/{k}": np.asarray(part) for k, (_, part) in enumerate(found)}
    if which == "fast":
        report["different"] = {name: told(name, changes) for name, changes in DIFFERENT.items()}
        report["refused"] = {name: told(name, changes) for name, (changes, *_) in REFUSED.items()}
        report["outside"] = outside()
    np.savez(f"{path}.npz", **arrays)
    Path(f"{path}.json").write_text(json.dumps(report))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[4:])
