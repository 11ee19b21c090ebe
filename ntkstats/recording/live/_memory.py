"""What a recorder remembers, as a flat dict of arrays that any checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.errors import RecordingError, RunMismatchError
from ntkstats.typing import PyTree

RECORDED = "recorded"
"""Name of the last recorded step in a saved state."""

_CARRY = "carry/"


class Memory(NamedTuple):
    """A saved state: the last recorded step (-1 if none), and the collectors' arrays by name."""

    recorded: int
    arrays: Mapping[str, np.ndarray]

    @property
    def is_empty(self) -> bool:
        """Whether it was saved before the first record."""
        return self.recorded < 0 and not self.arrays


def pack(recorded: int, carry: PyTree) -> dict[str, np.ndarray]:
    """The last recorded step and the leaves of ``carry``, copied to the host.

    Typed PRNG keys become their numbers; arrays without entries, which most formats refuse, are
    left out.
    """
    arrays = {
        _CARRY + name: np.array(jax.device_get(_numbers(leaf)))
        for name, leaf in _named(carry).items()
        if leaf.size
    }
    return {RECORDED: np.asarray(recorded, np.int64), **arrays}


def unpack(state: Any) -> Memory:
    """What `pack` was given, not yet compared with any collector.

    Raises
    ------
    RecordingError
        This is no saved state of a recorder.
    """
    if not isinstance(state, Mapping) or RECORDED not in state:
        held = sorted(map(str, state))[:5] if isinstance(state, Mapping) else ""
        msg = (
            f"restore was given a {type(state).__name__} {held}; expected the dict of arrays that "
            f"recorder.state() returned, as the checkpoint gives it back"
        )
        raise RecordingError(msg)
    arrays = {name: np.asarray(value) for name, value in state.items() if name != RECORDED}
    recorded = np.asarray(state[RECORDED])
    if recorded.size != 1 or recorded.dtype.kind not in "iu":
        msg = (
            f"the recorder state holds {RECORDED}={recorded!r}; expected the number of the last "
            f"recorded step. Restore the dict as recorder.state() returned it"
        )
        raise RecordingError(msg)
    return Memory(int(recorded.reshape(())), arrays)


def refill(carry: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """``carry`` with its leaves taken from a saved state.

    Raises
    ------
    RunMismatchError
        Names, shapes or dtypes differ: the state belongs to other collectors, or another probe.
    """
    leaves = {_CARRY + name: leaf for name, leaf in _named(carry).items()}
    wanted = {name: _kind(_numbers(leaf)) for name, leaf in leaves.items() if leaf.size}
    given = {name: _kind(array) for name, array in arrays.items()}
    if wanted != given:
        lines = [
            f"{name} is {given.get(name, 'absent')}, expected {wanted.get(name, 'no such array')}"
            for name in dict.fromkeys([*wanted, *given])
            if wanted.get(name) != given.get(name)
        ]
        shown = "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else "")
        msg = (
            f"the recorder state does not fit the collectors: {shown}. Restore the state that was "
            f"saved with the same collectors and probes"
        )
        raise RunMismatchError(msg)
    filled = [_as_leaf(arrays[name], leaf) if leaf.size else leaf for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(carry), filled)


def remembering(carry: Mapping[str, PyTree]) -> list[str]:
    """The collectors that remember anything."""
    return [name for name, part in carry.items() if jax.tree.leaves(part)]


def _named(carry: PyTree) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(carry)
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _kind(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _as_leaf(array: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    # A NumPy array keeps float64 also where JAX would not.
    return np.array(array) if array.dtype.itemsize == 8 else jnp.asarray(array)
