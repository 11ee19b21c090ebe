"""Torch tensors as NumPy arrays; torch itself is never imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ntkstats._compat import loaded
from ntkstats.typing import PyTree


def without_torch(tree: PyTree) -> PyTree:
    """The tree with every torch tensor as a NumPy array of its own.

    A mapping that JAX does not know (the batch of a tokenizer) becomes a dict. Half precision
    is widened to float32, which holds every value of it. Everything else stays as it is.
    """
    torch = loaded("torch")
    if torch is None:
        return tree
    if isinstance(tree, Mapping) and jax.tree_util.all_leaves([tree]):
        tree = dict(tree)

    def is_tensor(leaf: Any) -> bool:
        return isinstance(leaf, torch.Tensor)

    def converted(leaf: Any) -> Any:
        if not is_tensor(leaf):
            return leaf
        leaf = leaf.detach()
        half = leaf.is_floating_point() and leaf.element_size() < 4
        return (leaf.float() if half else leaf).cpu().numpy().copy()

    if not any(map(is_tensor, jax.tree.leaves(tree))):
        return tree
    return jax.tree.map(converted, tree)
