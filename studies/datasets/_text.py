"""Real text that every Python installation holds: its manual and its own source code."""

from __future__ import annotations

import io
import keyword
import platform
import string
import sysconfig
import tokenize
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ntkstats.errors import DependencyError
from studies._errors import StudyError
from studies.datasets._kinds import Text

ALPHABET = "\ufffd\n" + string.printable[:95]
"""Line break and printable ASCII; the first character stands for all others."""

KINDS = ("space", "name", "keyword", "number", "string", "comment", "operator")
"""What a character of a program belongs to."""

MODULES = (
    *("argparse", "ast", "calendar", "cmd", "codecs", "configparser", "contextlib", "csv"),
    *("dataclasses", "difflib", "dis", "enum", "fileinput", "fractions", "functools", "gettext"),
    *("heapq", "inspect", "ipaddress", "json.decoder", "json.encoder", "locale", "mimetypes"),
    *("optparse", "pickle", "pprint", "random", "sched", "shelve", "shlex", "shutil"),
    *("statistics", "string", "tempfile", "textwrap", "threading", "timeit", "tokenize", "trace"),
    *("traceback", "types", "typing", "uuid", "warnings", "weakref", "zipapp"),
)

_LICENCE = "PSF-2.0"
_NAMES = {*keyword.kwlist}


def manual(*, seed: int = 0, test_fraction: float = 0.1, window: int = 64) -> Text:
    """The reference manual that `help()` shows, some 460 000 characters of English and code.

    The target of a character is the next one. The text differs a little between versions of
    Python; `source` names the version.

    Parameters
    ----------
    seed
        Decides which chapters are held out, and the order.
    test_fraction
        Share of the chapters that is held out, in (0, 1).
    window
        Characters of a sample.

    Raises
    ------
    DependencyError
        This installation of Python came without it.
    StudyError
        The share leaves a side empty.
    """
    train, test = _parts(_chapters(), seed, test_fraction, window)
    pieces = [[_windows(encode(text), window) for text in part] for part in (train, test)]
    (x_train, y_train), (x_test, y_test) = (
        (windows[:, :-1], windows[:, 1:]) for windows in map(np.concatenate, pieces)
    )
    return _shuffled(
        (x_train, y_train, x_test, y_test),
        seed,
        (),
        "Python manual",
        f"pydoc_data.topics of Python {platform.python_version()}: the language reference",
    )


def source_code(*, seed: int = 0, test_fraction: float = 0.1, window: int = 64) -> Text:
    """Source of modules of the standard library; the target says what a character belongs to.

    The kinds are those of Python's own tokeniser, keywords apart from names. A window may begin
    inside a string or comment, which only what follows tells.

    Parameters
    ----------
    seed
        Decides which modules are held out, and the order.
    test_fraction
        Share of the modules that is held out, in (0, 1).
    window
        Characters of a sample.

    Raises
    ------
    DependencyError
        This installation of Python holds no source code.
    StudyError
        The share leaves a side empty.
    """
    parts = _parts(_modules(), seed, test_fraction, window)
    cut = [
        np.concatenate([_windows(rows(text), window - 1) for text in part])
        for part in parts
        for rows in (encode, tags)
    ]
    return _shuffled(
        (cut[0], cut[1], cut[2], cut[3]),
        seed,
        KINDS,
        "Python source code",
        f"{len(MODULES)} modules of the standard library of Python {platform.python_version()}",
    )


def encode(text: str) -> np.ndarray:
    """``(len(text),)`` int32: positions in `ALPHABET`, 0 for what it lacks."""
    places = {character: i for i, character in enumerate(ALPHABET)}
    return np.array([places.get(character, 0) for character in text], np.int32)


def tags(source: str) -> np.ndarray:
    """``(len(source),)`` int32: positions in `KINDS`."""
    lines = source.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])
    found = np.zeros(len(source), np.int32)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = _kind(token)
        if kind is not None:
            first, last = (starts[line - 1] + column for line, column in (token.start, token.end))
            found[first:last] = KINDS.index(kind)
    return found


def _kind(token: tokenize.TokenInfo) -> str | None:
    if token.type == tokenize.NAME:
        return "keyword" if token.string in _NAMES else "name"
    # since Python 3.12 an f-string is several tokens, FSTRING_START and so on
    name = tokenize.tok_name[token.type]
    if "STRING" in name:
        return "string"
    return {"NUMBER": "number", "COMMENT": "comment", "OP": "operator"}.get(name)


@lru_cache(maxsize=1)
def _chapters() -> tuple[str, ...]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        msg = "The manual comes with Python (pydoc_data), which was installed without it."
        raise DependencyError(msg) from error
    return tuple(topics[name] for name in sorted(topics))


@lru_cache(maxsize=1)
def _modules() -> tuple[str, ...]:
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [folder / f"{name.replace('.', '/')}.py" for name in MODULES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        msg = f"Python was installed without the source code of {', '.join(missing)} in {folder}."
        raise DependencyError(msg)
    return tuple(path.read_text(encoding="utf-8") for path in paths)


def _parts(
    texts: Sequence[str], seed: int, test_fraction: float, window: int
) -> tuple[list[str], list[str]]:
    """Whole chapters or modules, so that no sentence is on both sides."""
    if window < 2:
        msg = f"window={window}; expected at least 2 characters."
        raise StudyError(msg)
    long = [text for text in texts if len(text) > window]
    held = round(test_fraction * len(long))
    if not 0 < held < len(long):
        msg = (
            f"test_fraction={test_fraction} holds out {held} of {len(long)} texts; expected at "
            "least one on each side."
        )
        raise StudyError(msg)
    order = np.random.default_rng(seed).permutation(len(long))
    return [long[i] for i in order[held:]], [long[i] for i in order[:held]]


def _windows(codes: np.ndarray, window: int) -> np.ndarray:
    """``(N, window + 1)`` samples side by side; what is left at the end is dropped."""
    n = len(codes) // (window + 1)
    return codes[: n * (window + 1)].reshape(n, window + 1)


def _shuffled(
    parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    seed: int,
    kinds: tuple[str, ...],
    name: str,
    source: str,
) -> Text:
    x_train, y_train, x_test, y_test = parts
    rng = np.random.default_rng([seed, 1])
    train, test = rng.permutation(len(x_train)), rng.permutation(len(x_test))
    return Text(
        x_train[train],
        y_train[train],
        x_test[test],
        y_test[test],
        ALPHABET,
        kinds,
        name,
        source,
        _LICENCE,
    )
