"""What a scan remembers between two calls, in a file beside the run."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ntkstats.errors import StoreError
from ntkstats.recording.store._store import store_path


class Sidecar(NamedTuple):
    """The file ``NAME.scan.npz``: arrays only, replaced as a whole."""

    file: Path

    @classmethod
    def beside(cls, path: str | os.PathLike[str]) -> Sidecar:
        """The sidecar of the run at ``path``."""
        return cls(store_path(path).with_suffix(".scan.npz"))

    def write(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what the file holds.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        draft = self.file.with_suffix(".npz.part")
        try:
            with draft.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **dict(state))
            draft.replace(self.file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            msg = f"cannot write {self.file}: {error}; make its folder writable, or free some space"
            raise StoreError(msg) from error

    def read(self) -> dict[str, np.ndarray] | None:
        """What was written last; None if there is nothing, or nothing that can be used."""
        try:
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None
