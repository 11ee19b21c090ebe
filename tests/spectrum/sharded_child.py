"""Run with four host devices: large-kernel routines on a kernel spread by rows.

Prints what was found and how large the largest array is that any collective gathers.
"""

from __future__ import annotations

import json
import re
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ntkstats.spectrum import entropy_estimate, top_eigenvalues

SHAPE = re.compile(r"f32\[([\d,]+)\][^=]*\b(?:all-gather|all-to-all|collective-permute)\(")


def top(K):
    found = top_eigenvalues(K, 4, key=jax.random.key(1), block=5, depth=6)
    return found.values, found.residuals


def entropy(K):
    found = entropy_estimate(K, key=jax.random.key(1), block=8, depth=3, probes=4, steps=5)
    return found.value, found.stderr


def main() -> None:
    n = int(sys.argv[1])
    J = np.random.default_rng(0).normal(size=(n, n)) * np.arange(1, n + 1) ** -0.8
    K = (J @ J.T).astype(np.float32)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("rows", None))
    spread = jax.device_put(K, sharding)
    report = {"devices": len(spread.sharding.device_set)}
    for name, fn in (("top", top), ("entropy", entropy)):
        compiled = jax.jit(fn).lower(spread).compile()
        sizes = [
            int(np.prod([int(d) for d in dims.split(",")]))
            for dims in SHAPE.findall(compiled.as_text())
        ]
        report[name] = {
            "spread": [np.asarray(out).tolist() for out in compiled(spread)],
            "alone": [np.asarray(out).tolist() for out in jax.jit(fn)(K)],
            "collectives": len(sizes),
            "largest": max(sizes, default=0),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
