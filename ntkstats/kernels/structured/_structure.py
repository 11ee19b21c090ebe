"""The pullback of one sample, cut, and how the pieces of each parameter array are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats._compat import Graph, Variable, trace
from ntkstats.kernels._jacobian import head_outputs
from ntkstats.kernels.structured._cut import Leaf, cut
from ntkstats.kernels.structured._products import Product
from ntkstats.kernels.structured._transposed import without_zeros
from ntkstats.models import Model, layer_names
from ntkstats.typing import Array, Inputs, Params, State

STRUCTURED_RULES = (
    "product",
    "convolution",
    "lookup",
    "product + lookup",
    "sum",
    "vector",
    "masked product",
    "zero",
)


class Spread(NamedTuple):
    """What a value depends on.

    Attributes
    ----------
    samples, rows
        Whether it differs between samples, and between cotangents of a sample.
    """

    samples: bool
    rows: bool


@dataclass(frozen=True, eq=False)
class Structure:
    """The pullback of one sample as a graph, with the last product of every gradient cut off.

    Attributes
    ----------
    graph
        From the leaves of ``(params, state, x of one sample, cotangent)`` to the gradients; its
        scans also return operands, so it is pruned before it runs.
    leaves
        How each gradient is written.
    names
        Name of each parameter array.
    n_shared
        Number of inputs of the graph before those that belong to the sample.
    """

    graph: Graph
    leaves: tuple[Leaf, ...]
    names: tuple[str, ...]
    n_shared: int
    _programs: dict[tuple[Any, ...], Graph] = field(default_factory=dict)

    @cached_property
    def spreads(self) -> tuple[set[Variable], set[Variable]]:
        """Variables that differ between samples, and between cotangents."""
        inputs = self.graph.inputs
        return (
            self.graph.depending(inputs[self.n_shared :]),
            self.graph.depending(inputs[-1:]),
        )

    def spread(self, variable: Variable) -> Spread:
        """What a variable depends on."""
        samples, rows = self.spreads
        return Spread(variable in samples, variable in rows)

    @property
    def coverage(self) -> float:
        """Share of the parameters whose gradients were recognised."""
        sizes = [(leaf.rule in STRUCTURED_RULES, math.prod(leaf.shape)) for leaf in self.leaves]
        return sum(n for known, n in sizes if known) / max(1, sum(n for _, n in sizes))

    def live_bytes(self, wanted: Sequence[Variable]) -> int:
        """Bytes that pulling back one cotangent needs at most, the wanted values not counted."""
        return self.graph.pruned(list(wanted)).live_bytes(self.spreads[1])

    def evaluate(
        self, wanted: list[Variable], params: Params, state: State, x: Inputs, cotangents: Array
    ) -> dict[Variable, Array]:
        """Values for a tile of samples.

        Parameters
        ----------
        wanted
            Variables of the graph.
        params, state
            Of the model.
        x
            Leaves ``(n, ...)``.
        cotangents
            ``(n, r, C)``.

        Returns
        -------
        dict
            ``(n, r, ...)``, without the axes on which a value does not depend.
        """
        wanted = list(dict.fromkeys(wanted))
        key = tuple(map(id, wanted))
        if key not in self._programs:
            program = self.graph.pruned(wanted)
            on_cpu = jax.default_backend() == "cpu"
            self._programs[key] = without_zeros(program) if on_cpu else program
        program = self._programs[key]
        spreads = [self.spread(v) for v in wanted]
        shared = jax.tree.leaves((params, state))
        dtype = self.graph.inputs[-1].dtype

        def of_row(x_leaves: list[Array], v: Array) -> list[Any]:
            return program.run(*shared, *x_leaves, v)

        of_sample = jax.vmap(
            of_row, in_axes=(None, 0), out_axes=[0 if s.rows else None for s in spreads]
        )
        of_tile = jax.vmap(
            of_sample, in_axes=(0, 0), out_axes=[0 if s.samples else None for s in spreads]
        )
        values = of_tile(jax.tree.leaves(x), cotangents.astype(dtype))
        return dict(zip(wanted, values, strict=True))


def structure_of(model: Model, head: str, params: Params, state: State, x: Inputs) -> Structure:
    """Trace the pullback of one sample and cut it; arguments may be shapes."""

    def outputs(params: Params, state: State, x: Inputs) -> Array:
        batch = jax.tree.map(lambda leaf: leaf[None], x)
        return head_outputs(model, head, params, state, batch)[0]

    def pullback(params: Params, state: State, x: Inputs, v: Array) -> Params:
        _, pull = jax.vjp(lambda p: outputs(p, state, x), params)
        return pull(v)[0]

    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    shapes = [
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), tree)
        for tree in (params, state)
    ]
    out = jax.eval_shape(outputs, *shapes, one)
    graph = trace(pullback, *shapes, one, jax.ShapeDtypeStruct(out.shape, out.dtype))
    leaves = cut(graph, graph.inputs[-1])
    before = len(jax.tree.leaves((params, state)))
    names = tuple(name[-1] for name in layer_names(params))
    return Structure(graph, tuple(leaves), names, before)


def operands_of(product: Product) -> list[Variable]:
    """Variables that a product needs."""
    return [product.left.variable, product.right.variable]
