"""Engines: what makes the tiles of Jacobian rows.

The reference engine writes every row out by vmapped VJPs: exact for whatever JAX can
differentiate, the fallback of the structured engine and what that is held against.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ntkstats._lanes import Index
from ntkstats.kernels._jacobian import jacobian_rows, jacobian_rows_coupled
from ntkstats.kernels.contraction._factors import Factor, Rows
from ntkstats.kernels.structured import _structured
from ntkstats.kernels.structured._choice import Choice
from ntkstats.kernels.structured._structure import Structure
from ntkstats.models import Model
from ntkstats.typing import Array, Inputs, Params, State


@runtime_checkable
class Engine(Protocol):
    """Makes tiles of rows. Engines are compared by identity."""

    @property
    def name(self) -> str:
        """What ``method=`` calls it."""

    @property
    def kinds(self) -> Hashable:
        """How each array is written: only tiles of equal kinds can be contracted."""

    def tile(
        self, params: Params, state: State, x: Inputs, start: Index, cotangents: Array
    ) -> Sequence[Factor]:
        """Rows of some samples.

        Parameters
        ----------
        params, state, x
            What is differentiated, and all inputs, leaves ``(N, ...)``.
        start
            First sample of the tile.
        cotangents
            ``(n, r, C)``, or ``(1, r, C)`` for all samples alike.
        """


@dataclass(frozen=True, eq=False)
class ReferenceEngine:
    """Chunked vmapped VJPs.

    Attributes
    ----------
    model, head
        What is differentiated.
    """

    model: Model
    head: str
    name: str = "reference"

    @property
    def kinds(self) -> Hashable:
        """See `Engine`."""
        return self.name

    def tile(
        self, params: Params, state: State, x: Inputs, start: Index, cotangents: Array
    ) -> Sequence[Factor]:
        """Rows of some samples, see `Engine`."""
        samples = cotangents.shape[0]
        if self.model.coupled:
            index = start + jnp.arange(samples)
            rows = jacobian_rows_coupled(self.model, self.head, params, state, x, index, cotangents)
        else:
            tile = samples_from(x, start, samples)
            rows = jacobian_rows(self.model, self.head, params, state, tile, cotangents)
        leaves = [leaf.astype(accumulator(leaf.dtype)) for leaf in jax.tree.leaves(rows)]
        return [Rows(position, leaf) for position, leaf in enumerate(leaves)]


@dataclass(frozen=True, eq=False)
class StructuredEngine:
    """Factors of the last product behind every gradient.

    Attributes
    ----------
    structure
        The cut pullback.
    chosen
        Arrays that take part, and how.
    pieces
        Groups of rows that are pulled back one after the other (see `_structured.factors`).
    piece_bytes
        Bytes of rows that may be written out at a time.
    """

    structure: Structure
    chosen: tuple[Choice, ...]
    pieces: int = 1
    piece_bytes: int = 2**24
    name: str = "structured"

    @property
    def kinds(self) -> Hashable:
        """See `Engine`."""
        leaves = self.structure.leaves
        return tuple((c.leaf, c.how, c.bias, leaves[c.leaf].rule) for c in self.chosen)

    def tile(
        self, params: Params, state: State, x: Inputs, start: Index, cotangents: Array
    ) -> Sequence[Factor]:
        """Rows of some samples, see `Engine`."""
        tile = samples_from(x, start, cotangents.shape[0])
        pieces = min(self.pieces, cotangents.shape[1])
        return _structured.factors(
            self.structure,
            self.chosen,
            params,
            state,
            tile,
            cotangents,
            pieces=pieces,
            piece=self.piece_bytes,
        )


def samples_from(x: Inputs, start: Index, samples: int) -> Inputs:
    """Samples ``start`` and after."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, samples), x)


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """Dtype of contractions: float32 or wider, so that K is never stored in half precision."""
    return jnp.promote_types(dtype, jnp.float32)
