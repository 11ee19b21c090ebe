"""What a run is told when it starts, checked, and compared when it is resumed."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

from ntkstats.errors import RecordingError
from ntkstats.recording.live._identity import check_same_settings, key_data
from ntkstats.recording.store._json import plain
from ntkstats.recording.store._store import Store, Stored
from ntkstats.typing import Array


def settings_of(config: Any, seed: Any, key: Array, members: int | None) -> dict[str, Any]:
    """The settings as JSON.

    Raises
    ------
    StoreError
        The config holds something that JSON does not.
    RecordingError
        The seed is not a whole number, or one for each member.
    """
    return {
        "config": plain(config, "config"),
        "seed": _check_seed(seed, members),
        "key": key_data(key),
        "members": members,
    }


def open_store(
    path: str | os.PathLike[str], resume: bool | str, settings: Mapping[str, Any]
) -> tuple[Store, Stored | None]:
    """The store, and what it says about the run that is to be resumed, if it is one.

    Raises
    ------
    StoreError, ExistingRunError, RunMismatchError
        As for `Recorder`; the store is then closed.
    """
    if resume not in (True, False, "takeover"):
        msg = f"resume must be True, False or 'takeover', got {resume!r}"
        raise RecordingError(msg)
    store = Store(path, resume=resume)
    try:
        stored = store.stored()
        if stored is not None:
            check_same_settings(stored.meta, settings)
    except BaseException:
        store.close()
        raise
    return store, stored


def _check_seed(seed: Any, members: int | None) -> int | list[int] | None:
    try:
        if seed is None or isinstance(seed, int):
            return seed
        seeds = [operator.index(entry) for entry in seed]
    except TypeError:
        msg = f"seed must be an integer or a list of them, got {seed!r}"
        raise RecordingError(msg) from None
    if len(seeds) != (members or 1):
        msg = f"{len(seeds)} seeds were given for members={members}; give one for each member"
        raise RecordingError(msg)
    return seeds
