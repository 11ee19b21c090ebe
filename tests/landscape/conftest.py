"""Landscapes that several tests look at; each is explored once."""

import jax
import pytest

from ntkstats import landscape


def explored(problem, starts, *, top=1, path=None, seed=0, saddle_starts=None):
    """Minima, saddles up to an index, and pathways."""
    scape = landscape.Landscape(problem, path)
    scape.find_minima(key=jax.random.key(seed), starts=starts)
    follow = landscape.Follow(max_iterations=100)
    for index in range(1, top + 1):
        key = jax.random.key(seed + index)
        scape.find_saddles(key=key, index=index, starts=saddle_starts or starts, follow=follow)
    scape.connect()
    return scape


@pytest.fixture(scope="session")
def mueller_brown():
    return explored(landscape.mueller_brown(), 100, top=2)


@pytest.fixture(scope="session")
def xor1():
    return explored(landscape.xor_network(1, 1e-2), 500, top=2)


@pytest.fixture(scope="session")
def xor2(tmp_path_factory):
    path = tmp_path_factory.mktemp("xor") / "two"
    return explored(landscape.xor_network(2, 1e-2), 1000, top=3, path=path, saddle_starts=2048)
