"""Runs that the tests of this folder look at."""

import shutil

import pytest

from tests.cli import runs


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A folder with two runs, ``slow`` and ``fast``; not to be changed."""
    folder = tmp_path_factory.mktemp("recorded")
    runs.train(folder / "slow", rate=0.1)
    runs.train(folder / "fast", rate=0.5, seed=1)
    return folder


@pytest.fixture
def folder(recorded, tmp_path):
    """A copy of the two runs."""
    for file in recorded.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path
