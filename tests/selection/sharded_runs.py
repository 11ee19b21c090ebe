"""Selections on four devices, against one; run as a program of its own."""

import sys

import jax
import numpy as np

from ntkstats import selection as sel
from tests.selection.systems import KEY, SELECTORS, pool

ROWS = 18  # not a multiple of the devices


def main(names):
    mesh = jax.make_mesh((4,), ("rows",))
    data = pool(ROWS)
    features = data._replace(kernel=sel.linear(data.x), prior=None)
    kept = {"selected": [3], "candidates": [i for i in range(ROWS) if i != 5]}
    for name in names:
        for given in (data, features) if name == "mean_variance" else (data,):
            one = sel.select(SELECTORS[name], KEY, given, 6, **kept)
            many = sel.select_sharded(SELECTORS[name], KEY, given, 6, mesh=mesh, **kept)
            assert one.indices.tolist() == many.indices.tolist(), (name, one, many)
            np.testing.assert_allclose(one.scores, many.scores, rtol=1e-3, atol=1e-5)
    print("agree", *names)


if __name__ == "__main__":
    assert len(jax.devices()) == 4
    main(sys.argv[1:])
