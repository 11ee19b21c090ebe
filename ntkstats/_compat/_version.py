"""What is installed, and whether it may be used.

Features are detected; versions are looked at for known defects only (`check_version`, which the
package calls on import).
"""

from __future__ import annotations

import functools
import re
import sys
from types import ModuleType

import jax
import jax.numpy as jnp

from ntkstats.errors import DependencyError

OLDEST = (0, 9)
"""The oldest JAX that is supported, as (major, minor)."""

DEFECTIVE = {"0.10.2": "it computes wrong numbers on CPU (jax issue 39103)"}
"""Releases that must not be used, and why."""


def check_version(version: str = jax.__version__) -> None:
    """Refuse a JAX release that is too old or known to be wrong.

    Costs nothing; `check_jax` also computes.

    Parameters
    ----------
    version
        Version string to judge; the installed JAX by default.

    Raises
    ------
    DependencyError
        The release is older than `OLDEST` or listed in `DEFECTIVE`.
    """
    if version in DEFECTIVE:
        msg = (
            f"JAX {version} is installed, and {DEFECTIVE[version]}. ntkstats needs another release:"
            " pip install 'jax>=0.9,!=0.10.2'."
        )
        raise DependencyError(msg)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        msg = (
            f"JAX {version} is installed; ntkstats needs {OLDEST[0]}.{OLDEST[1]} or newer:"
            " pip install 'jax>=0.9,!=0.10.2'."
        )
        raise DependencyError(msg)


def canary() -> bool:
    """Whether this JAX gets a sum right that a defective release got wrong.

    Each row ``(i, 0, 0)`` is multiplied by the identity and its squares are summed, so the last
    value must be ``32768**2`` exactly.

    Returns
    -------
    bool
        True when the number is right.

    References
    ----------
    JAX issue 39103: JAX 0.10.2 gives 1065369600.
    """
    n = 32769
    rows = jnp.zeros((n, 3), jnp.float32).at[:, 0].set(jnp.arange(n, dtype=jnp.float32))
    identity = jnp.eye(3, dtype=jnp.float32)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((row @ identity) ** 2)))(rows)
    return float(squares[-1]) == 1073741824.0


@functools.cache
def check_jax() -> None:
    """Refuse a JAX that computes wrong numbers; runs `canary` once a process.

    Raises
    ------
    DependencyError
        The release is refused by `check_version`, or the canary came out wrong.
    """
    check_version()
    if not canary():
        msg = (
            f"JAX {jax.__version__} computed a wrong number in a check whose answer is known"
            " (see jax issue 39103); no result could be trusted. Install another release of jax"
            " and jaxlib."
        )
        raise DependencyError(msg)


def loaded(name: str) -> ModuleType | None:
    """Give the module called ``name`` if somebody imported it already, else None.

    A model of a framework cannot exist before its framework was imported, so nothing has to be
    imported to recognise one.
    """
    return sys.modules.get(name)
