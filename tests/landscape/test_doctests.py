"""The examples in the docstrings of this room are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import ntkstats.landscape

ROOM = ntkstats.landscape.__path__
MODULES = sorted(f"ntkstats.landscape.{module.name}" for module in pkgutil.iter_modules(ROOM))


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_function_has_an_example():
    for name in ntkstats.landscape.__all__:
        thing = getattr(ntkstats.landscape, name)
        if callable(thing) and not isinstance(thing, type):
            assert ">>>" in thing.__doc__, name
