"""Arrays from orbax checkpoints, on the host, whatever devices wrote them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ntkstats.errors import CheckpointError, CheckpointMismatchError
from ntkstats.recording.mirrors._optional import optional

_MARKS = ("_METADATA", "manifest.ocdbt", "_sharding")
_STEP_MARKS = ("_CHECKPOINT_METADATA", *_MARKS)
_NOT_ARRAYS = frozenset({"metrics", "metadata", "descriptor"})


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one orbax checkpoint: a tree of arrays, or several as its items."""
    return is_marked(folder) or bool(_items(folder))


def is_marked(folder: Path) -> bool:
    """Whether a folder says of itself that it is an orbax checkpoint; older ones do not."""
    return any((folder / mark).exists() for mark in _STEP_MARKS)


def _items(folder: Path) -> list[str]:
    inner = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    return [entry.name for entry in inner if any((entry / mark).exists() for mark in _MARKS)]


def read(folder: Path, part: str | None) -> Any:
    """The tree of arrays that one checkpoint holds, or a part of it.

    Raises
    ------
    CheckpointError
        It is damaged or unfinished.
    CheckpointMismatchError
        It has no such part.
    DependencyError
        orbax is not installed.
    """
    ocp = optional("orbax.checkpoint", user=f"Reading {folder.name}", extra="orbax")
    levels = [] if part is None else part.strip("/").split("/")
    try:
        with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            folder = _item(folder, levels).absolute()
            metadata = reader.metadata(folder).item_metadata
            if metadata is None:
                msg = f"{_name(folder)} is no finished orbax checkpoint of arrays; leave it out"
                raise CheckpointError(msg)
            tree = _skeleton(metadata.tree)
            wanted = _only(tree, levels, ocp.PLACEHOLDER, folder)
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            found = reader.restore(
                folder, args=ocp.args.PyTreeRestore(item=wanted, restore_args=kinds)
            )
    except CheckpointError:
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
        text = str(error).replace(f"{folder}/", "").partition("\n")[0][:300]
        msg = (
            f"the orbax checkpoint {_name(folder)} cannot be read "
            f"({type(error).__name__}: {text}); copy it again, or leave it out"
        )
        raise CheckpointError(msg) from error
    for level in levels:
        found = found[int(level)] if isinstance(found, list | tuple) else found[level]
    return found


def _item(folder: Path, levels: list[str]) -> Path:
    """The item of a checkpoint that holds the arrays; takes its name off ``levels``."""
    items = _items(folder)
    if not items or (folder / "_METADATA").exists():
        return folder
    if levels and levels[0] in items:
        return folder / levels.pop(0)
    candidates = [name for name in items if name not in _NOT_ARRAYS]
    if len(candidates) == 1:
        return folder / candidates[0]
    msg = (
        f"the checkpoint {folder.name} holds several items ({', '.join(items)}); say which one "
        f"holds the model, for example part={candidates[-1] if candidates else items[0]!r}"
    )
    raise CheckpointMismatchError(msg)


def _name(folder: Path) -> str:
    step = folder.parent.name
    return f"{step}/{folder.name}" if step.isdigit() else folder.name


def _skeleton(node: Any) -> Any:
    """The metadata as plain dicts and lists with a zero for each array."""
    if isinstance(node, dict):
        return {name: _skeleton(value) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_skeleton(value) for value in node]
    return None if node is None else 0


def _only(tree: Any, levels: list[str], nothing: Any, folder: Path) -> Any:
    """``tree`` with ``nothing`` for every array outside of the part, which is then not read."""
    if not levels:
        return tree
    first, *rest = levels
    if isinstance(tree, list):
        inner = {str(i): value for i, value in enumerate(tree)}
    else:
        inner = tree if isinstance(tree, dict) else {}
    if first not in inner:
        there = ", ".join(sorted(map(str, inner))[:8]) or "no parts"
        msg = f"the checkpoint {_name(folder)} has no part {first!r}; there it has {there}"
        raise CheckpointMismatchError(msg)
    left = {
        name: _only(value, rest, nothing, folder)
        if name == first
        else jax.tree.map(lambda _: nothing, value)
        for name, value in inner.items()
    }
    return list(left.values()) if isinstance(tree, list) else left


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a log line for every file that an older layout does not have."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
