"""Packages that only some users have."""

from __future__ import annotations

import importlib
from typing import Any

from ntkstats.errors import DependencyError


def optional(module: str, *, user: str, extra: str) -> Any:
    """Import a module of an extra, for what is called ``user``.

    Raises
    ------
    DependencyError
        It cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        msg = (
            f"{user} needs the package {package}, which cannot be imported ({error}); install it "
            f'with: pip install "ntkstats[{extra}]"'
        )
        raise DependencyError(msg) from error
