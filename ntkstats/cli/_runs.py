"""Runs named on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ntkstats.errors import NtkStatsError, StoreError

T = TypeVar("T")

SUFFIX = ".sqlite"


@contextmanager
def as_data(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what a malformed file makes Python raise into a StoreError.

    A store from elsewhere may hold anything in its cells; that is not a bug of this program.
    """
    try:
        yield
    except NtkStatsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        what = f"{type(error).__name__}: {error}"
        msg = f"{path} holds what no recorder writes ({what}); restore it from a copy"
        raise StoreError(msg) from error


def read(reader: Callable[[str], T], path: str) -> T:
    """``reader(path)``, and a StoreError for whatever is wrong with the file."""
    with as_data(path):
        return reader(path)


def stem(path: str | os.PathLike[str]) -> Path:
    """The path of a run without its suffix, to which others are added."""
    file = Path(path).expanduser()
    return file.with_suffix("") if file.suffix == SUFFIX else file


def labels(paths: Sequence[str]) -> list[str]:
    """Short names, all different: as many last parts of the paths as that takes.

    Raises
    ------
    StoreError
        A run is given twice.
    """
    parts = [stem(path).absolute().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    msg = f"a run is given twice in {json.dumps(list(paths))}; give each one once"
    raise StoreError(msg)
