"""Small but real networks of every kind that the kernels have to deal with."""

from __future__ import annotations

import functools

import numpy as np

from ..networks import System
from ..oracle import leaf_jacobians
from . import basics, generative, sequences, vision

SYSTEMS = {
    **basics.SYSTEMS,
    **vision.SYSTEMS,
    **sequences.SYSTEMS,
    **generative.SYSTEMS,
}

NARROW = ("nnx_float32",)
"""Networks that compute in float32 whatever their parameters are."""

# A bias of the keys adds the same to all scores of a query, which the softmax removes.
SILENT = {name: ("*key/bias",) for name in SYSTEMS} | {
    "actor": ("critic/*",),
    "critic": ("actor/*",),
}
"""Globs of the parameters that a system's head does not depend on."""


@functools.cache
def system(name: str) -> System:
    """One of `SYSTEMS`, built once."""
    return SYSTEMS[name]()


@functools.cache
def dense_leaves(name: str) -> list[np.ndarray]:
    """Its Jacobian, one array (N, C, P_leaf) for each parameter leaf, in float64."""
    s = system(name)
    return leaf_jacobians(*s.arguments, s.head)


def dense(name: str) -> np.ndarray:
    """Its Jacobian (N, C, P) in float64."""
    return np.concatenate(dense_leaves(name), axis=-1)
