"""The examples of the rooms around loops give what they say."""

import doctest
import importlib
import pkgutil

import pytest

from ntkstats import attach, checkpoints

MODULES = sorted(
    f"{room.__name__}.{module.name}"
    for room in (attach, checkpoints)
    for module in pkgutil.iter_modules(room.__path__)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
