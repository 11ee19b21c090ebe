"""What is found stays found: files, resuming, refusing the wrong problem."""

import sqlite3

import jax
import numpy as np
import pytest

from ntkstats import landscape
from ntkstats.errors import ProblemMismatchError, SchemaVersionError, StoreError
from ntkstats.landscape import _search


def same_rows(one, other):
    assert len(one.points) == len(other.points)
    for mine, theirs in zip(one.points, other.points, strict=True):
        np.testing.assert_array_equal(mine.theta, theirs.theta)
        np.testing.assert_array_equal(mine.spectrum, theirs.spectrum)
        assert (mine.energy, mine.index, mine.orbit, mine.n_zero, mine.observed) == (
            theirs.energy, theirs.index, theirs.orbit, theirs.n_zero, theirs.observed,
        )  # fmt: skip
    assert one.hits == other.hits
    np.testing.assert_array_equal(one.network().ends, other.network().ends)


def test_a_landscape_is_read_back_as_it_was(xor2):
    path = xor2._store.path
    with landscape.Landscape(landscape.xor_network(2, 1e-2), path) as again:
        same_rows(xor2, again)
        saddle = int(again.network().saddles.id[0])
        mine, theirs = xor2.path(saddle, 1), again.path(saddle, 1)
        np.testing.assert_array_equal(mine.path.theta, theirs.path.theta)
        # A search that ended is not run again.
        report = again.find_minima(key=jax.random.key(0), starts=1000)
        assert report.converged == 1000
        same_rows(xor2, again)
        assert again.connect().starts == 0


def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setattr(_search, "_BLOCK", 32)
    problem = landscape.mueller_brown()
    settings = {"key": jax.random.key(5), "starts": 96}
    whole = landscape.Landscape(problem)
    whole.find_minima(**settings)
    calls = []
    quenched = _search.quenched

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return quenched(*args)

    monkeypatch.setattr(_search, "quenched", interrupted)
    scape = landscape.Landscape(problem, tmp_path / "mb")
    with pytest.raises(KeyboardInterrupt):
        scape.find_minima(**settings)
    scape.close()
    resumed = landscape.Landscape(problem, tmp_path / "mb")
    assert sum(resumed.hits) == 32
    report = resumed.find_minima(**settings)
    assert len(calls) == 4  # one before, one that was interrupted, two after
    assert report.starts == 96
    same_rows(whole, resumed)


def test_the_landscape_of_another_problem_is_refused(tmp_path):
    landscape.Landscape(landscape.xor_network(1, 1e-2), tmp_path / "xor").close()
    with pytest.raises(ProblemMismatchError, match="Data, regularisation or network differ"):
        landscape.Landscape(landscape.xor_network(1, 1e-3), tmp_path / "xor")
    with pytest.raises(ProblemMismatchError, match="in 7 dimensions"):
        landscape.Landscape(landscape.mueller_brown(), tmp_path / "xor")


def test_files_of_other_kinds_are_refused(tmp_path):
    problem = landscape.mueller_brown()
    (tmp_path / "text.sqlite").write_text("hello " * 100)
    with pytest.raises(StoreError, match="not an SQLite file"):
        landscape.Landscape(problem, tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="not a landscape"):
        landscape.Landscape(problem, tmp_path / "other")
    landscape.Landscape(problem, tmp_path / "new").close()
    newer = sqlite3.connect(tmp_path / "new.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.commit()
    newer.close()
    with pytest.raises(SchemaVersionError, match="upgrade ntkstats"):
        landscape.Landscape(problem, tmp_path / "new")


def test_what_could_not_be_written_is_not_remembered(tmp_path):
    scape = landscape.Landscape(landscape.mueller_brown(), tmp_path / "mb")
    scape.close()
    with pytest.raises(StoreError):
        scape.find_minima(key=jax.random.key(0), starts=8)
    assert scape.points == []
