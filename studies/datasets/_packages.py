"""Data inside installed packages."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from ntkstats.errors import DependencyError


def imported(module: str, package: str) -> Any:
    """Import the module that gives the data.

    Raises
    ------
    DependencyError
        The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(package, f"pip install {package}") from error


def file_of(package: str, path: str, install: str) -> Path:
    """A file of a package that is not imported, since its dependencies may be missing.

    Raises
    ------
    DependencyError
        The package is not installed, or does not hold the file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(folder) / path
        if found.is_file():
            return found
    raise _missing(package, install)


def _missing(package: str, install: str) -> DependencyError:
    return DependencyError(
        f"The data come with {package}, which is not installed; install it with: {install}"
    )
