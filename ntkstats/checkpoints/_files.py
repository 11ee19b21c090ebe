"""Arrays from checkpoint files and folders, by name; nothing that is read can run code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ntkstats.checkpoints import _orbax
from ntkstats.errors import CheckpointError, CheckpointMismatchError
from ntkstats.recording.mirrors._optional import optional

Arrays = Mapping[str, np.ndarray]
"""``{"layer/kernel": array}``, levels joined by slashes."""

SUFFIXES = (".safetensors", ".npz")
PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".dill", ".cloudpickle")


def check_kind(path: Path) -> None:
    """Refuse what is not read here, before anything is opened.

    Raises
    ------
    CheckpointError
        The file may hold a pickle, or is of an unknown kind.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLED:
        msg = (
            f"{path.name} may hold a pickle, which runs code when it is loaded; no pickle is ever "
            f"loaded here. Where you trust the file, convert its arrays to .safetensors or .npz, "
            f"or give a function of your own as load="
        )
        raise CheckpointError(msg)
    if suffix in SUFFIXES or path.is_dir():
        return
    if path.exists():
        msg = (
            f"{path.name} is no kind of checkpoint that is known here; expected an orbax folder, "
            f"{' or '.join(SUFFIXES)}. For any other format give a function as load="
        )
        raise CheckpointError(msg)
    raise CheckpointError(_nothing_at(path))


def _nothing_at(path: Path) -> str:
    return f"there is no checkpoint at {path.name}; it was moved or deleted, or is called otherwise"


def read(path: Path, part: str | None) -> Any:
    """The arrays of one checkpoint as a tree: that which orbax saved, or one built from names.

    Parameters
    ----------
    path
        An orbax folder or a file.
    part
        Slash-joined path of the part that is wanted; None for everything.

    Raises
    ------
    CheckpointError
        It cannot be read or is damaged.
    CheckpointMismatchError
        It has no such part.
    DependencyError
        A package of an extra is missing.
    """
    if not path.exists():
        raise CheckpointError(_nothing_at(path))
    if path.is_dir():
        return _orbax.read(path, part)
    flat = _safetensors(path) if path.suffix.lower() == ".safetensors" else _npz(path)
    flat = by_slashes(flat)
    if part is not None:
        start = part.strip("/") + "/"
        inner = {n.removeprefix(start): a for n, a in flat.items() if n.startswith(start)}
        if not inner:
            tops = sorted({name.split("/")[0] for name in flat})
            msg = f"{path.name} has no part {part!r}; at its top it has {', '.join(tops[:8])}"
            raise CheckpointMismatchError(msg)
        flat = inner
    return nest(flat)


def _safetensors(path: Path) -> Arrays:
    library = optional("safetensors.numpy", user=f"Reading {path.name}", extra="safetensors")
    try:
        return library.load_file(path)
    except Exception as error:  # the library's own class derives from Exception alone
        msg = f"{path.name} cannot be read as safetensors ({error}); copy it again, or leave it out"
        raise CheckpointError(msg) from error


def _npz(path: Path) -> Arrays:
    try:
        # NumPy leaves a file open that it opened itself and that is no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as e:
        pickled = "pickle" in str(e)
        why = "it holds Python objects, which would run code" if pickled else str(e)
        msg = (
            f"{path.name} cannot be read as npz ({why}); save plain arrays with np.savez, or leave "
            f"it out"
        )
        raise CheckpointError(msg) from e


def by_slashes(flat: Arrays) -> dict[str, np.ndarray]:
    """Names with slashes between their levels, also where there were dots."""
    if any("/" in name for name in flat):
        return dict(flat)
    return {name.replace(".", "/"): array for name, array in flat.items()}


def nest(flat: Arrays) -> Any:
    """A tree of dicts from slash-joined names; levels named 0, 1, 2, ... become lists.

    Raises
    ------
    CheckpointError
        A name stands for an array and for a level at once.
    """
    root: dict[str, Any] = {}
    for name, array in flat.items():
        *levels, last = name.split("/")
        node = root
        for level in levels:
            node = node.setdefault(level, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or last in node:
            msg = f"the checkpoint has an array {name!r}, and another one above or below that name"
            raise CheckpointError(msg)
        node[last] = array
    return _with_lists(root)


def _with_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    inner = {name: _with_lists(value) for name, value in node.items()}
    places = [str(i) for i in range(len(inner))]
    return [inner[i] for i in places] if inner and set(inner) == set(places) else inner
