"""Arrays by name put into the structure that the model splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import loaded
from ntkstats.errors import CheckpointError, CheckpointMismatchError
from ntkstats.typing import PyTree

_SHOWN = 5


class _Slot(NamedTuple):
    """A place for an array; ``optional`` ones keep what they hold if the checkpoint lacks them."""

    leaf: Any
    optional: bool


def fill(like: Any, tree: PyTree, where: str) -> Any:
    """A copy of ``like`` with the arrays of ``tree`` in it; ``like`` itself is never touched.

    Arrays take the dtype of ``like`` within their kind. Random streams, counters that are Python
    numbers and whatever is no array may be missing in the checkpoint.

    Parameters
    ----------
    like
        Parameters, TrainState, flax nnx or Equinox module, any pytree.
    tree
        From `read`.
    where
        The checkpoint's name, for messages.

    Raises
    ------
    CheckpointMismatchError
        Arrays are missing, unexpected, or of another shape or kind.
    """
    slots, rebuild = _slots(like)
    found = _named(tree)
    if not any(isinstance(slot.leaf, _Array) for slot in slots.values()):
        msg = f"like= is a {type(like).__name__} without arrays; give what the model splits"
        raise CheckpointError(msg)
    # Variables of flax nnx that were saved as they are have a level of their own.
    for name in slots:
        if name not in found and f"{name}/value" in found:
            found[name] = found.pop(f"{name}/value")
    missing = [n for n, slot in slots.items() if n not in found and not slot.optional]
    unexpected = [name for name in found if name not in slots]
    wrong = [
        f"{name} is {_kind(found[name])}, expected {_kind(slot.leaf)}"
        for name, slot in slots.items()
        if name in found and not _fits(found[name], slot.leaf)
    ]
    if missing or unexpected or wrong:
        raise CheckpointMismatchError(_mismatch(where, slots, found, missing, unexpected, wrong))
    return rebuild({n: _convert(found[n], s.leaf) for n, s in slots.items() if n in found})


_Array = jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
_Rebuild = Callable[[Mapping[str, Any]], Any]


def _slots(like: Any) -> tuple[dict[str, _Slot], _Rebuild]:
    nnx = loaded("flax.nnx")
    if nnx is not None and isinstance(like, nnx.Module):
        return _slots_of_nnx(nnx, like)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    named = {_name(path): leaf for path, leaf in leaves}

    def rebuild(filled: Mapping[str, Any]) -> Any:
        return jax.tree.unflatten(treedef, [filled.get(n, leaf) for n, leaf in named.items()])

    slots = {
        name: _Slot(leaf, optional=_is_key(leaf) or not isinstance(leaf, _Array))
        for name, leaf in named.items()
        if isinstance(leaf, _Array | bool | int | float)
    }
    return slots, rebuild


def _slots_of_nnx(nnx: Any, like: Any) -> tuple[dict[str, _Slot], _Rebuild]:
    graph, state = nnx.split(like)
    streams = set(_named(nnx.to_pure_dict(nnx.state(like, nnx.RngState))))
    leaves, treedef = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    named = {_name(path): leaf for path, leaf in leaves}

    def rebuild(filled: Mapping[str, Any]) -> Any:
        arrays = [filled.get(name, leaf) for name, leaf in named.items()]
        return nnx.merge(graph, jax.tree.unflatten(treedef, arrays))

    slots = {name: _Slot(leaf, optional=name in streams) for name, leaf in named.items()}
    return slots, rebuild


def _named(tree: PyTree) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, _Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], Any]:
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return data.shape, data.dtype
    return np.shape(leaf), jnp.result_type(leaf)


def _kind(leaf: Any) -> str:
    shape, dtype = _shape_and_dtype(leaf)
    return f"{dtype}{list(shape)}"


def _fits(found: Any, leaf: Any) -> bool:
    (shape, dtype), (wanted, kind) = _shape_and_dtype(found), _shape_and_dtype(leaf)
    kinds = (jnp.floating, jnp.integer, jnp.bool_, jnp.complexfloating)
    same = any(jnp.issubdtype(dtype, k) and jnp.issubdtype(kind, k) for k in kinds)
    return shape == wanted and same


def _convert(found: Any, leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(found), impl=jax.random.key_impl(leaf))
    if not isinstance(leaf, _Array):
        return type(leaf)(found)
    return jnp.asarray(found, leaf.dtype)


def _mismatch(
    where: str,
    slots: Mapping[str, _Slot],
    found: Mapping[str, Any],
    missing: list[str],
    unexpected: list[str],
    wrong: list[str],
) -> str:
    lists = {"missing": missing, "unexpected": unexpected, "other shapes or kinds": wrong}
    parts = [f"{what}: {_some(names)}" for what, names in lists.items() if names]
    arrays = [name for name, slot in slots.items() if not slot.optional]
    tops = {name.split("/")[0] for name in found}
    inside = [top for top in sorted(tops) if all(f"{top}/{name}" in found for name in arrays)]
    advice = (
        f"It lies in a part of the checkpoint: give part={inside[0]!r}"
        if inside
        else "Give as like= what was saved, with the same sizes, or say with part= where it lies"
    )
    return f"{where} does not fit like= ({'; '.join(parts)}). {advice}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f", ... ({len(names)} in all)" if len(names) > _SHOWN else "")
