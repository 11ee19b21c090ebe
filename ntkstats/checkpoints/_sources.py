"""Where checkpoints come from: folders, files, pairs with steps; in the order of their steps."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ntkstats.checkpoints import _orbax
from ntkstats.checkpoints._files import PICKLED, SUFFIXES, check_kind
from ntkstats.checkpoints._steps import has_number, steps_of
from ntkstats.errors import CheckpointError
from ntkstats.recording import RecordAt
from ntkstats.recording._warn import warn

Open = Callable[[Any], Any]
"""From an entry (a path, or whatever stands in its place) to what the model splits."""

_FORMS = (
    "a folder, a file, a list of files, a list of (step, file or object), {step: file or object}, "
    "or with load= a list of steps"
)


class Source(NamedTuple):
    """One checkpoint that is not loaded yet.

    Attributes
    ----------
    step
        Number of updates.
    name
        What it is called in messages.
    load
        Gives what the model splits.
    """

    step: int
    name: str
    load: Callable[[], Any]


Sources: TypeAlias = list[Source] | Iterator[Source]
"""A list in the order of steps, or a stream that may be gone through once."""


def chosen(sources: Sources, at: RecordAt) -> Sources:
    """Those of the steps at which something is due.

    Raises
    ------
    CheckpointError
        There are none, or the schedule is a share of the time of a loop.
    """
    if at.share is not None:
        msg = (
            f"at={at} is a budget, a share of the time that training takes, and checkpoints are "
            f"not trained; choose steps, such as RecordAt.every(1000)"
        )
        raise CheckpointError(msg)
    if not isinstance(sources, list):
        return (source for source in sources if at.due(source.step))
    due = [source for source in sources if at.due(source.step)]
    if not due:
        steps = ", ".join(str(source.step) for source in sources[:5])
        msg = f"at={at} holds none of the steps of the checkpoints ({steps}, ...); choose others"
        raise CheckpointError(msg)
    return due


def sources_of(checkpoints: Any, read: Open, load: Open | None) -> Sources:
    """All checkpoints in the order of their steps; a stream stays one.

    Parameters
    ----------
    checkpoints
        As for `scan_checkpoints`.
    read
        Reads a path of a known kind.
    load
        The user's own loader; takes the place of ``read`` and is given every entry.

    Raises
    ------
    CheckpointError
        There are none, steps cannot be told or occur twice, or a kind is unknown.
    """
    if isinstance(checkpoints, str | os.PathLike):
        found = _in_folder(Path(checkpoints).expanduser(), load is not None)
        return _listed(_with_steps(found), read, load)
    if isinstance(checkpoints, Mapping):
        return _listed(list(checkpoints.items()), read, load)
    if isinstance(checkpoints, Sequence):
        return _listed(_pairs(checkpoints, load), read, load)
    if isinstance(checkpoints, Iterator):
        return _streamed(checkpoints, read, load)
    if isinstance(checkpoints, Iterable) and not hasattr(checkpoints, "shape"):
        return _listed(_pairs(list(checkpoints), load), read, load)
    msg = f"checkpoints is a {type(checkpoints).__name__}; expected {_FORMS}"
    raise CheckpointError(msg)


def _pairs(entries: Sequence[Any], load: Open | None) -> list[tuple[Any, Any]]:
    paths = [entry for entry in entries if isinstance(entry, str | os.PathLike)]
    if paths and len(paths) == len(entries):
        for path in paths if load is None else ():
            check_kind(Path(path))
        return _with_steps([Path(path) for path in paths])
    return [_pair(entry, load) for entry in entries]


def _pair(entry: Any, load: Open | None) -> tuple[Any, Any]:
    if isinstance(entry, tuple) and len(entry) == 2:
        return entry
    if load is not None and hasattr(entry, "__index__"):
        return entry, entry
    msg = f"an entry of checkpoints is {_short(entry)}; expected {_FORMS}"
    raise CheckpointError(msg)


def _with_steps(paths: Sequence[Path]) -> list[tuple[Any, Any]]:
    steps = steps_of([_stem(path) for path in paths])
    return list(zip(steps, paths, strict=True))


def _stem(path: Path) -> str:
    # The rest after a dot may also be a part of a number or of a folder's name.
    is_ending = path.suffix[1:2].isalpha() and not path.is_dir()
    return path.stem if is_ending else path.name


def _listed(pairs: Sequence[tuple[Any, Any]], read: Open, load: Open | None) -> list[Source]:
    if not pairs:
        msg = f"there are no checkpoints; expected {_FORMS}"
        raise CheckpointError(msg)
    sources = sorted((_source(*pair, read, load) for pair in pairs), key=lambda s: s.step)
    for one, other in pairwise(sources):
        if one.step == other.step:
            msg = (
                f"two checkpoints belong to step {one.step}: {one.name} and {other.name}; give a "
                f"list or {{step: path}} of those you mean"
            )
            raise CheckpointError(msg)
    return sources


def _streamed(entries: Iterator[Any], read: Open, load: Open | None) -> Sources:
    first = next(entries, None)
    if isinstance(first, str | os.PathLike):  # paths, as from Path.glob: names are cheap to hold
        return _listed(_pairs([first, *entries], load), read, load)
    if first is None:
        return _listed([], read, load)

    def stream() -> Iterator[Source]:
        last = -1
        for entry in chain([first], entries):
            source = _source(*_pair(entry, load), read, load)
            if source.step <= last:
                msg = (
                    f"step {source.step} comes after step {last}; give the checkpoints in the "
                    f"order of their steps, or a list, which is sorted"
                )
                raise CheckpointError(msg)
            last = source.step
            yield source

    return stream()


def _source(step: Any, entry: Any, read: Open, load: Open | None) -> Source:
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        msg = f"a checkpoint has step {step!r}; expected the number of updates, 0 or more"
        raise CheckpointError(msg)
    is_path = isinstance(entry, str | os.PathLike)
    name = Path(entry).name if is_path else f"the checkpoint of step {number}"
    if load is not None:
        return Source(number, name, lambda: load(entry))
    if is_path:
        check_kind(Path(entry))
        return Source(number, name, lambda: read(Path(entry)))
    return Source(number, name, lambda: entry)


def _in_folder(path: Path, own_loader: bool) -> list[Path]:
    """The checkpoints in a folder; the path itself if it is one."""
    if not path.exists():
        msg = f"there is no folder or file {path}; give the place of the checkpoints"
        raise CheckpointError(msg)
    if path.is_file() or (_orbax.is_checkpoint(path) and not _holds_steps(path)):
        return [path]
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith((".", "_"))]
    files = [e for e in entries if e.is_file() and (own_loader or e.suffix.lower() in SUFFIXES)]
    found = files + _folders(entries)
    if not found:
        pickled = [e.name for e in entries if e.is_file() and e.suffix.lower() in PICKLED]
        if pickled:
            check_kind(path / pickled[0])
        msg = f"there is no checkpoint in {path}; expected orbax folders, {' or '.join(SUFFIXES)}"
        raise CheckpointError(msg)
    nameless = [entry.name for entry in found if not has_number(_stem(entry))]
    if nameless and len(nameless) < len(found):
        warn(
            f"{', '.join(nameless[:5])} in {path.name} are left out: their names hold no step. "
            f"Give {{step: path}} to measure them"
        )
        found = [entry for entry in found if entry.name not in nameless]
    return found


def _holds_steps(path: Path) -> bool:
    """Whether a folder holds orbax checkpoints by step, rather than the items of one."""
    inner = (entry for entry in path.iterdir() if entry.is_dir() and has_number(entry.name))
    return not _orbax.is_marked(path) and any(map(_orbax.is_checkpoint, inner))


def _folders(entries: Sequence[Path]) -> list[Path]:
    """Orbax checkpoints, and folders named like one, which may be damaged."""
    folders = [e for e in entries if e.is_dir() and ".orbax-checkpoint-tmp" not in e.name]
    sound = [entry for entry in folders if _orbax.is_checkpoint(entry)]
    series = {_series(entry) for entry in sound}
    return [entry for entry in folders if entry in sound or _series(entry) in series]


def _series(path: Path) -> str:
    return "".join("#" if c.isdigit() else c for c in path.name).replace("##", "#").rstrip("#")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
