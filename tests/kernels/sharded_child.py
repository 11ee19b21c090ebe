"""Run with several host devices, as ``python -m tests.kernels.sharded_child PATH fast``.

Writes to files the kernels on meshes of some of the devices, and what else there is to know.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntkstats import kernels
from ntkstats._compat import x64
from ntkstats.kernels.sharded import _sharded
from ntkstats.kernels.sharded._placement import axis_of
from ntkstats.spectrum import top_eigenvalues

from ..effort import Effort
from .sharded_cases import FAST, KEY, SLOW, Case, budget, options, other, probe, system

COLLECTIVE = re.compile(r"f32\[([\d,]*)\][^=\n]*\b(all-gather|all-to-all|collective-permute)\(")


def mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("rows",))


def computed(case: Case, **on: Any) -> kernels.KernelMatrix:
    """The kernel of a case."""
    s = system(case)
    second: dict[str, Any] = {}
    if case.cross == "inputs":
        second["cross"] = probe(other(case), case)
    elif case.cross == "moment":
        second["cross_params"] = other(case).params
    return kernels.empirical_ntk(
        s.model,
        s.params,
        s.state,
        probe(s, case),
        head=s.head,
        shard=case.shard,
        precision=case.precision,
        budget_bytes=budget(case),
        **options(case),
        **second,
        **({"mesh": mesh(case.devices)} | on),
    )


def facts(K: kernels.KernelMatrix) -> dict[str, Any]:
    """What is said about a kernel besides its numbers."""
    with x64():  # or a float64 kernel is rounded
        trace = float(K.trace)
    return {
        "padding": K.padding,
        "method": K.method,
        "n_samples": K.n_samples,
        "dtype": str(K.matrix.dtype),
        "shards": [list(shard.data.shape) for shard in K.matrix.addressable_shards],
        "traces": {name: float(value) for name, value in K.layer_traces.items()},
        "trace": trace,
    }


def ways_to_give_a_mesh() -> dict[str, np.ndarray]:
    """The same kernel however mesh and arrays are given."""
    case = FAST["mlp_multiple"]
    s = system(case)
    square = np.array(jax.devices()).reshape(2, 2)
    explicit = jax.make_mesh((4,), ("devices",))
    spread = jax.device_put(s.x, NamedSharding(mesh(4), PartitionSpec("rows")))
    everywhere = jax.device_put(s.params, NamedSharding(mesh(4), PartitionSpec()))
    # Arrays whose types name the axis of their mesh.
    typed = [
        jax.device_put(tree, NamedSharding(explicit, PartitionSpec(*axes)))
        for tree, axes in ((s.params, ()), (s.x, ("devices",)))
    ]
    halves = jax.device_put(s.x, NamedSharding(Mesh(square, ("a", "b")), PartitionSpec("a")))
    found = {
        "second_axis": computed(case, mesh=Mesh(square, ("a", "b")), mesh_axis="b"),
        "explicit": computed(case, mesh=explicit),
    }
    arrays = {
        "spread": (everywhere, spread, 4),
        "halves": (s.params, halves, 4),
        "typed": (*typed, 4),
        "typed_odd": (*typed, 3),
    }
    for name, (params, x, devices) in arrays.items():
        found[name] = kernels.empirical_ntk(
            s.model, params, s.state, x, outputs="trace", mesh=mesh(devices)
        )
    return {name: np.asarray(K.matrix)[: case.n, : case.n] for name, K in found.items()}


def watched(case: Case) -> tuple[kernels.KernelMatrix, dict[str, Any]]:
    """A kernel, and what travels between the devices by the compiled program."""
    sizes: list[tuple[str, int]] = []

    def spied(*args: Any) -> kernels.KernelMatrix:
        compiled = jitted.lower(*args).compile()
        for dims, name in COLLECTIVE.findall(compiled.as_text()):
            sizes.append((name, int(np.prod([int(d) for d in dims.split(",") if d]))))
        return compiled(args[-1])

    jitted, _sharded._by_rows = _sharded._by_rows, spied
    try:
        K = computed(case)
    finally:
        _sharded._by_rows = jitted
    return K, {
        "names": sorted({name for name, _ in sizes}),
        "largest": max(size for _, size in sizes),
        "own_rows": K.matrix.size // case.devices,
    }


def worked_with() -> dict[str, Any]:
    """Products, trace and largest eigenvalues of a kernel as it comes."""
    K = computed(FAST["mlp_multiple"])
    top = top_eigenvalues(K.matrix, 3, key=KEY, block=4, depth=2)
    product = K.matrix @ np.ones(len(K.matrix), np.float32)
    return {
        "trace": float(K.trace),
        "top": np.asarray(top.values).tolist(),
        "product": np.asarray(product).tolist(),
        "product_on": len(product.sharding.device_set),
    }


def main(path: str, which: str) -> None:
    """Compute all kernels of some cases."""
    effort = Effort()
    report: dict[str, Any] = {"devices": len(jax.devices()), "cases": {}}
    matrices = {}
    for name, case in {"fast": FAST, "slow": SLOW}[which].items():
        effort.set(optimised=which == "slow" or name == "tiles")
        if name == "tiles":
            K, report["traffic"] = watched(case)
        else:
            K = computed(case)
        matrices[name] = np.asarray(K.matrix)
        report["cases"][name] = facts(K)
    if which == "fast":
        ways = ways_to_give_a_mesh()
        matrices |= ways
        report |= {"ways": list(ways), "worked_with": worked_with()}
        report["sharing_memory"] = [axis_of(mesh(d), None).sharing_memory for d in (1, 3)]
    np.savez(f"{path}.npz", **matrices)
    Path(f"{path}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
