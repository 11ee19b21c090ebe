"""Non-array leaves as part of a tree's structure, so that state can cross `jit` and `vmap`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import loaded
from ntkstats.typing import PyTree


@jax.tree_util.register_static
class Static:
    """A pytree node without leaves around one Python value.

    Two equal values give equal tree structures, so a model split again after a training step
    causes no retrace. A value that cannot be hashed is hashed by its type.
    """

    __slots__ = ("_hash", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self._hash = hash((Static, value))
        except TypeError:
            self._hash = hash((Static, type(value)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static):
            return NotImplemented
        if self.value is other.value:
            return True
        if type(self.value) is not type(other.value):
            return False
        try:
            return bool(self.value == other.value)
        except (TypeError, ValueError):  # e.g. a list of arrays: equal only to itself
            return False

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Static({self.value!r})"


def is_static(node: Any) -> bool:
    """Tell whether a node is `Static`, for ``is_leaf=``."""
    return isinstance(node, Static)


def is_array(leaf: Any) -> bool:
    """Tell whether a leaf has a shape and a dtype that JAX can trace."""
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind not in "OSUMmV" or jnp.issubdtype(leaf.dtype, jnp.number)
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


def _frozen_leaf(leaf: Any) -> Any:
    if is_array(leaf) or is_static(leaf):
        return leaf
    if isinstance(leaf, bool | int | float | complex):
        # A strong dtype: the first update of a weakly typed number would change its type.
        return jnp.asarray(leaf, dtype=jnp.result_type(type(leaf)))
    return Static(leaf)


def _frozen_module_leaf(leaf: Any) -> Any:
    return leaf if is_array(leaf) or is_static(leaf) else Static(leaf)


def freeze(tree: PyTree) -> PyTree:
    """Return the tree with every leaf an array or `Static`.

    Python numbers become arrays, as they do under `jax.jit`, except inside an Equinox module,
    where by that library's convention they are hyperparameters.
    """
    equinox = loaded("equinox")
    if equinox is None:
        return jax.tree.map(_frozen_leaf, tree, is_leaf=is_static)

    def is_module(node: Any) -> bool:
        return is_static(node) or isinstance(node, equinox.Module)

    def frozen(node: Any) -> Any:
        if isinstance(node, equinox.Module):
            return jax.tree.map(_frozen_module_leaf, node, is_leaf=is_static)
        return _frozen_leaf(node)

    return jax.tree.map(frozen, tree, is_leaf=is_module)


def thaw(tree: PyTree) -> PyTree:
    """Undo `freeze`: put the plain values back in place of `Static`."""
    return jax.tree.map(lambda n: n.value if is_static(n) else n, tree, is_leaf=is_static)
