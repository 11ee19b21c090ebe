"""The examples in the docstrings run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["_correlation", "_intervals", "_phases", "_power_law"])
def test_examples_run(name):
    module = importlib.import_module(f"ntkstats.analysis.{name}")
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
