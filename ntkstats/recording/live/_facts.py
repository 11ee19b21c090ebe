"""Where and with what a run was made: versions, device, source revision."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from ntkstats._compat import loaded

_GIT_SECONDS = 5.0
_PACKAGES = ("jax", "jaxlib", "numpy", "flax", "equinox", "optax")
# Named only if they take part; importing them is not this library's affair.
_GUESTS = ("torch", "transformers", "lightning")


def facts() -> dict[str, Any]:
    """Versions, device and git revision of this process as JSON; no path, user or host name."""
    devices = jax.devices()
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        "git": _git(),
    }


def _versions() -> dict[str, str]:
    # From the package itself: it need not be installed to be used.
    found = {"ntkstats": getattr(sys.modules.get("ntkstats"), "__version__", "unknown")}
    for name in (*_PACKAGES, *filter(loaded, _GUESTS)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any] | None:
    """Revision of the working directory, and whether tracked files were changed."""
    try:
        revision = _run_git("rev-parse", "HEAD")
        changed = _run_git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no repository, no commit yet, or too slow to wait for
    return {"revision": revision, "changed": bool(changed)}


def _run_git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        capture_output=True,
        text=True,
        timeout=_GIT_SECONDS,
        check=True,
        # Looking must not refresh the index of a repository that others use.
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )
    return done.stdout.strip()
