"""The command line: ``python -m ntkstats COMMAND RUN``."""

from ntkstats.cli._main import main as main

__all__ = ["main"]
