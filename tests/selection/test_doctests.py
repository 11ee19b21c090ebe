"""The examples in the docstrings of this room are true."""

import doctest
import importlib
import pkgutil

import pytest

import ntkstats.selection

ROOM = ntkstats.selection.__path__
MODULES = sorted(f"ntkstats.selection.{module.name}" for module in pkgutil.iter_modules(ROOM))
RESULTS = {"Correlation", "InitScore", "Paired", "Round", "Selection", "Split", "ToleranceRun"}
PROTOCOL = {"Columns", "Greedy", "Problem", "Selector", "TrainedScore", "Whole"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_everything_public_has_an_example():
    for name in ntkstats.selection.__all__:
        if name not in RESULTS | PROTOCOL:
            assert ">>>" in getattr(ntkstats.selection, name).__doc__, name
