"""One type for each kind of data. All have two parts, and say where they come from."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np


class Dataset(Protocol):
    """What all kinds have in common; inputs are pytrees with a leading sample axis."""

    @property
    def x_train(self) -> Any:
        """Inputs to learn from."""
        ...

    @property
    def y_train(self) -> np.ndarray:
        """Their targets: whole numbers for classes, floating-point ones otherwise."""
        ...

    @property
    def x_test(self) -> Any:
        """Inputs held out."""
        ...

    @property
    def y_test(self) -> np.ndarray:
        """Their targets."""
        ...

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def source(self) -> str:
        """Where it comes from, with the reference."""
        ...

    @property
    def licence(self) -> str:
        """Its terms."""
        ...


class Data(NamedTuple):
    """Images and labels, split and standardised.

    Attributes
    ----------
    x_train, x_test
        ``(N, height, width, channels)`` float32: pixels in [0, 1], minus `mean`, over `std`.
    y_train, y_test
        ``(N,)`` int32 labels.
    mean, std
        Of all training pixels; the test images took no part.
    name, source, licence
        What the data are, where they come from, and their terms.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    mean: float
    std: float
    name: str
    source: str
    licence: str


class Table(NamedTuple):
    """Rows of numbers, split and standardised.

    Attributes
    ----------
    x_train, x_test
        ``(N, d)`` float32, standardised by `x_mean` and `x_std`.
    y_train, y_test
        Classes ``(N,)`` int32, or values ``(N, 1)`` float32 standardised by `y_mean`, `y_std`.
    x_mean, x_std
        ``(d,)`` of the training rows; the deviation of a constant column is 1.
    y_mean, y_std
        Of the training targets, in the units of `target`; 0 and 1 for classes.
    features, target
        What the columns are.
    name, source, licence
        As for `Data`.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    x_mean: np.ndarray
    x_std: np.ndarray
    y_mean: float
    y_std: float
    features: tuple[str, ...]
    target: str
    name: str
    source: str
    licence: str


class Graphs(NamedTuple):
    """Many small graphs with a number each, padded to one size.

    Attributes
    ----------
    x_train, x_test
        ``{"nodes": (N, n, d), "edges": (N, n, n), "mask": (N, n)}`` float32: features, symmetric
        adjacency, and 1 for nodes that exist.
    y_train, y_test
        ``(N, 1)`` float32, standardised by `y_mean` and `y_std` of the training graphs.
    target
        What the number is.
    name, source, licence
        As for `Data`.
    """

    x_train: dict[str, np.ndarray]
    y_train: np.ndarray
    x_test: dict[str, np.ndarray]
    y_test: np.ndarray
    y_mean: float
    y_std: float
    target: str
    name: str
    source: str
    licence: str


class Graph(NamedTuple):
    """One graph, some of whose nodes are labelled.

    Attributes
    ----------
    x_train, x_test
        ``(N,)`` int32, numbers of nodes.
    y_train, y_test
        ``(N,)`` int32 labels of these nodes.
    nodes, edges
        Features ``(n, d)`` and symmetric adjacency ``(n, n)`` of all nodes, float32.
    name, source, licence
        As for `Data`.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray
    name: str
    source: str
    licence: str


class Text(NamedTuple):
    """Windows of a text that do not overlap, with a target for each character.

    Attributes
    ----------
    x_train, x_test
        ``(N, window)`` int32, positions in `alphabet`.
    y_train, y_test
        ``(N, window)`` int32: the next character, or the kind of this one (see `kinds`).
    alphabet
        The characters; the first stands for all that are not among the others.
    kinds
        Names of the targets; empty where the target is the next character.
    name, source, licence
        As for `Data`.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    alphabet: str
    kinds: tuple[str, ...]
    name: str
    source: str
    licence: str
