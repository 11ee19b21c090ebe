"""Which leaves are differentiated, and what they are called."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from ntkstats._compat import loaded
from ntkstats.errors import ParamsError
from ntkstats.models._static import Static, freeze, is_array, is_static
from ntkstats.typing import Params, PyTree

Predicate: TypeAlias = Callable[[str, Any], bool]
ParamsFilter: TypeAlias = str | Sequence[str] | Predicate | None

_SHOWN = 6  # leaf names listed in a message


def _is_box(node: Any) -> bool:
    """Tell whether a node only wraps one array with metadata (nnx Variable, linen Partitioned)."""
    nnx, meta = loaded("flax.nnx"), loaded("flax.core.meta")
    return (nnx is not None and isinstance(node, nnx.Variable)) or (
        meta is not None and isinstance(node, meta.AxisMetadata)
    )


def _named_nodes(tree: PyTree) -> Iterator[tuple[str, Any]]:
    # Boxes and Static count as one leaf each, so their own attribute names stay out of the path.
    nodes, _ = tree_flatten_with_path(tree, is_leaf=lambda n: _is_box(n) or is_static(n))
    for path, node in nodes:
        yield keystr(path, simple=True, separator="/"), node


def leaf_paths(tree: PyTree) -> tuple[str, ...]:
    """Slash-joined name of every array of a tree, in the order of `jax.tree.leaves`."""
    return tuple(name for name, node in _named_nodes(tree) for _ in jax.tree.leaves(node))


def layer_names(params: Params) -> tuple[tuple[str, str], ...]:
    """Name the layer and the leaf of every parameter.

    The layer is the path without its last component; a leaf at the top is its own layer. The
    root of a bare array is called ``"params"``.

    Parameters
    ----------
    params
        Pytree of arrays: dicts, sequences, dataclasses, nnx states and Equinox modules.

    Returns
    -------
    tuple of (layer, leaf path)
        One pair for each leaf, in the order of `jax.tree.leaves`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> layer_names({"Dense_0": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}})
    (('Dense_0', 'Dense_0/bias'), ('Dense_0', 'Dense_0/kernel'))
    >>> layer_names([(jnp.ones((3, 2)), jnp.ones(2))])
    (('0', '0/0'), ('0', '0/1'))
    """
    paths = (path or "params" for path in leaf_paths(params))
    return tuple((path.rpartition("/")[0] or path, path) for path in paths)


def check_filter(params_filter: ParamsFilter) -> None:
    """Refuse what is neither None, a glob, a sequence of globs nor a predicate."""
    if params_filter is None or isinstance(params_filter, str) or callable(params_filter):
        return
    if (
        isinstance(params_filter, Sequence)
        and params_filter
        and all(isinstance(glob, str) for glob in params_filter)
    ):
        return
    msg = (
        f"params_filter is {params_filter!r}; expected a glob on slash-joined names such as "
        '"*/lora_*", a non-empty list of globs, or a predicate (path, leaf) -> bool. '
        "Leave it out to differentiate every parameter."
    )
    raise ParamsError(msg)


def describe_filter(params_filter: ParamsFilter) -> str:
    """Say which parameters a filter keeps, for records."""
    if params_filter is None:
        return "all"
    if isinstance(params_filter, str):
        return params_filter
    if callable(params_filter):
        return f"predicate {getattr(params_filter, '__qualname__', type(params_filter).__name__)}"
    return " | ".join(params_filter)


def _predicate(params_filter: ParamsFilter) -> Predicate:
    if params_filter is None:
        return lambda _path, _leaf: True
    if callable(params_filter):
        return params_filter
    globs = [params_filter] if isinstance(params_filter, str) else list(params_filter)
    return lambda path, _leaf: any(fnmatch.fnmatchcase(path, glob) for glob in globs)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name or "(root)" for name in names[:_SHOWN])
    return shown + (f", ... ({len(names)} in all)" if len(names) > _SHOWN else "")


def _kept(path: str, leaf: Any, keep: Predicate) -> bool:
    if is_static(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return False
    answer = keep(path, leaf)
    # A NumPy bool is as good; anything else (None from a missing return) is a mistake.
    if not isinstance(answer, bool | np.bool_):
        msg = (
            f"params_filter returned {answer!r} for the parameter {path!r}; expected True or "
            "False. Return a bool from the predicate."
        )
        raise ParamsError(msg)
    if answer and jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        msg = (
            f"the parameter {path!r} is complex ({leaf.dtype}); the NTK here is defined for real "
            "parameters. Split it into real and imaginary parts, or leave it out with "
            "params_filter."
        )
        raise ParamsError(msg)
    return bool(answer)


def partition(tree: PyTree, params_filter: ParamsFilter = None) -> tuple[PyTree, PyTree]:
    """Part a tree into what is differentiated and what is not.

    Both halves keep the structure of `tree`, with None where the other half has the leaf.

    Raises
    ------
    ParamsError
        If nothing is left to differentiate or a chosen leaf is complex.
    """
    tree = freeze(tree)
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_static)
    if params_filter is None and all(_is_plain(leaf) for leaf in leaves):
        kept = [not is_static(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    else:  # names take longer than all the rest, and this runs at every record
        paths, keep = _paths(tree), _predicate(params_filter)
        kept = [_kept(path, leaf, keep) for path, leaf in zip(paths, leaves, strict=True)]
    if not any(kept):
        raise ParamsError(_nothing_left(_paths(tree), leaves, params_filter))
    params = [leaf if k else None for leaf, k in zip(leaves, kept, strict=True)]
    frozen = [None if k else leaf for leaf, k in zip(leaves, kept, strict=True)]
    return jax.tree.unflatten(treedef, params), jax.tree.unflatten(treedef, frozen)


def _is_plain(leaf: Any) -> bool:
    """Whether the leaf is kept or not by its dtype alone, and nothing is to be said about it."""
    return is_static(leaf) or not jnp.issubdtype(leaf.dtype, jnp.complexfloating)


def _paths(tree: PyTree) -> list[str]:
    """Names of the leaves, `Static` ones included."""
    nodes = _named_nodes(tree)
    return [name for name, node in nodes for _ in jax.tree.leaves(node, is_leaf=is_static)]


def _nothing_left(paths: Sequence[str], leaves: Sequence[Any], params_filter: ParamsFilter) -> str:
    floating = [
        path
        for path, leaf in zip(paths, leaves, strict=True)
        if is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if floating:
        return (
            f"params_filter={describe_filter(params_filter)!r} keeps no parameter; the "
            f"floating-point parameters are {_some(floating)}. Globs match the whole name, and "
            '"*" also matches "/".'
        )
    dtypes = sorted({str(leaf.dtype) for leaf in leaves if is_array(leaf)})
    return (
        f"there is no real floating-point parameter to differentiate among {len(leaves)} leaves"
        f"{' of dtype ' + ', '.join(dtypes) if dtypes else ''}. Pass the object that holds the "
        "parameters, or say with split= where they are."
    )


def _is_gap(node: Any) -> bool:
    return node is None or is_static(node)


def merge(params: Params, frozen: PyTree) -> PyTree:
    """Undo `partition`.

    Raises
    ------
    ParamsError
        If the two halves do not come from one tree.
    """
    treedef: Any
    ours, treedef = jax.tree.flatten(params, is_leaf=_is_gap)
    theirs, expected = jax.tree.flatten(frozen, is_leaf=_is_gap)
    if treedef != expected:
        raise ParamsError(_mismatch(params, treedef, expected))
    if any(p is not None and f is not None for p, f in zip(ours, theirs, strict=True)):
        msg = (
            "the parameters hold leaves that the filter left out; expected None in their place. "
            "Pass what split gave, unchanged in structure."
        )
        raise ParamsError(msg)
    whole = [
        f.value if isinstance(f, Static) else (p if f is None else f)
        for p, f in zip(ours, theirs, strict=True)
    ]
    return jax.tree.unflatten(treedef, whole)


def _mismatch(params: Params, treedef: Any, expected: Any) -> str:
    skeleton = jax.tree.unflatten(expected, [0] * expected.num_leaves)
    given, wanted = set(leaf_paths(params)), set(leaf_paths(skeleton))
    strange = sorted(given - wanted)
    detail = (
        f"unknown leaves are {_some(strange)}"
        if strange
        else f"given {treedef.num_leaves} leaves or containers in another arrangement, expected "
        f"{expected.num_leaves}"
    )
    return (
        f"the parameters have another structure than those the state was split from: {detail}. "
        "Pass the parameters and the state of one split of one model."
    )
