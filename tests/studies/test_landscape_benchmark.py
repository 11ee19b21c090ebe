"""How the landscape benchmark reads its peers, and counts what they found."""

import argparse
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import landscape as nts_landscape
from ntkstats._compat import x64
from studies.benchmarks import _gmin, landscape


def program(folder, text):
    """An executable that stands in for one of the peer's."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def block(energy, curvatures, coordinates):
    """A stationary point as OPTIM writes it: three numbers a line, D for powers of ten."""
    rows = [*np.reshape(curvatures, (-1, 3)), *np.reshape(coordinates, (-1, 3))]
    lines = ["  ".join(f"{value:.10e}".replace("e", "D") for value in row) for row in rows]
    return [f"   {energy:.15f}", "     1 C1", *lines]


def test_the_transition_state_is_the_second_of_three_points(tmp_path, monkeypatch):
    theta = [np.arange(12.0) + 100 * k for k in range(3)]
    lines = [line for k in range(3) for line in block(k, np.ones(12), theta[k])]
    (tmp_path / "found").write_text("\n".join(lines) + "\n")
    copying = program(tmp_path, "cp found path.info")
    monkeypatch.setattr(_gmin, "binary", lambda name: copying)
    found = _gmin.follow(tmp_path, 0, 3)
    np.testing.assert_array_equal(found.theta, np.tile(theta[1], (3, 1)))
    assert np.all(np.diff(found.seconds) >= 0)
    assert found.total >= found.seconds[-1] > 0


def test_a_search_that_fails_costs_time_and_finds_nothing(tmp_path, monkeypatch):
    failing = program(tmp_path, "exit 1")
    monkeypatch.setattr(_gmin, "binary", lambda name: failing)
    found = _gmin.follow(tmp_path, 0, 2)
    assert found.theta.shape == (0, 12)
    assert found.total > 0
    # One that got no further than a minimum leaves a single point.
    (tmp_path / "found").write_text("\n".join(block(0, np.ones(12), np.ones(12))))
    halfway = program(tmp_path, "cp found path.info")
    monkeypatch.setattr(_gmin, "binary", lambda name: halfway)
    assert len(_gmin.follow(tmp_path, 0, 1).theta) == 0


def test_energies_of_minima_are_read(tmp_path, monkeypatch):
    text = "          12\nEnergy of minimum      1=    0.4265388868       first found at step 0\n"
    (tmp_path / "found").write_text(text + text.replace("1= ", "2= ").replace("0.42", "0.52"))
    copying = program(tmp_path, "cp found lowest")
    monkeypatch.setattr(_gmin, "binary", lambda name: copying)
    found = _gmin.quench(tmp_path, 3, 10)
    assert found.energies == [0.4265388868, 0.5265388868]
    assert found.quenches == 10
    assert "STEPS 10 1.0" in (tmp_path / "data").read_text()


def test_missing_peers_are_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(_gmin, "PEER", tmp_path / "none")
    assert "make peers" in landscape.check(argparse.Namespace(seeds=1))
    assert "--seeds 0" in landscape.check(argparse.Namespace(seeds=0))
    with pytest.raises(FileNotFoundError):
        _gmin.binary("GMIN")


@pytest.mark.slow
def test_orbits_are_counted_once_whatever_image_was_found():
    known = landscape.reference()
    saddles = [known.points[i] for i in known.ids(1)]
    assert len(saddles) == landscape.SADDLES
    rng = np.random.default_rng(0)
    rows = [known.problem.symmetry.random_element(rng, point.theta) for point in saddles]
    minimum = known.points[known.ids(0)[0]].theta
    # Five orbits, the last new one at 6 s; then images of the first and a minimum.
    order = [rows[i] for i in (0, 1, 2, 0, 3, 4, 1, 0)]
    found = _gmin.Saddles(np.array([*order, minimum]), np.arange(1.0, 10.0), 12.0)
    assert landscape.reached(found) == landscape.Reached(5, 6.0)
    assert landscape.reached(_gmin.Saddles(np.zeros((0, 12)), np.zeros(0), 3.0)).orbits == 0
    assert sum(landscape.connections(known).values()) == landscape.SADDLES


@pytest.mark.slow
@pytest.mark.skipif(not _gmin.PEER.exists(), reason="needs `make peers`")
def test_files_that_pathsample_made_agree_with_ours(tmp_path):
    # Its Fortran shares nothing with us: the same minima and log-determinants, as it writes them.
    found = _gmin.explore(tmp_path, 1, 2)
    theirs = nts_landscape.read_pathsample(tmp_path, dim=12)
    ours = landscape.reference().network()
    assert len(theirs.minima) >= 3
    for kind in ("minima", "saddles"):
        known, read = getattr(ours, kind), getattr(theirs, kind)
        for energy, log_det in zip(read.energy, read.log_det, strict=True):
            nearest = int(np.abs(known.energy - energy).argmin())
            assert energy == pytest.approx(known.energy[nearest], abs=1e-9)
            assert log_det == pytest.approx(known.log_det[nearest], abs=1e-5)
    assert len(found.theta) == len(theirs.saddles)
    if len(found.theta):
        np.testing.assert_array_equal(theirs.saddles.theta, found.theta)
    loss = jax.vmap(landscape.reference().problem.loss)
    with x64():
        energies = np.asarray(loss(jnp.asarray(theirs.minima.theta)))
    np.testing.assert_allclose(energies, theirs.minima.energy, atol=1e-9)
