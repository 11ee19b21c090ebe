"""The structured engine: tiles of factors from the cut pullback."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from ntkstats._compat import Literal, Variable
from ntkstats.kernels.contraction._factors import Factor, Formed, Outer, Rows
from ntkstats.kernels.structured._choice import Choice
from ntkstats.kernels.structured._cut import Leaf
from ntkstats.kernels.structured._operands import masked_ids
from ntkstats.kernels.structured._products import Product
from ntkstats.kernels.structured._structure import Structure, operands_of
from ntkstats.typing import Array, Inputs, Params, State

# A table up to this long is added up by a product with one-hot vectors, a longer one by scattering.
ONE_HOT_UP_TO = 4096


def factors(
    structure: Structure,
    chosen: Sequence[Choice],
    params: Params,
    state: State,
    x: Inputs,
    cotangents: Array,
    *,
    pieces: int = 1,
    piece: int = 2**24,
) -> list[Factor]:
    """Factors of the rows of a tile of samples.

    Parameters
    ----------
    structure, chosen
        What was planned.
    params, state
        Of the model.
    x
        Leaves ``(n, ...)``.
    cotangents
        ``(n, r, C)``.
    pieces
        Rows are pulled back in that many groups, one after the other in one program.
    piece
        Bytes of rows that may be written out at a time.
    """
    wanted = wanted_by(structure, chosen)

    def of_rows(cotangents: Array) -> list[Factor]:
        values = structure.evaluate(wanted, params, state, x, cotangents)
        shape = (cotangents.shape[0], cotangents.shape[1])
        tile = _Tile(structure, values, shape, piece)
        return [
            factor
            for choice in chosen
            for factor in tile.factor(structure.leaves[choice.leaf], choice)
        ]

    if pieces == 1:
        return of_rows(cotangents)
    parts = [of_rows(piece) for piece in jnp.array_split(cotangents, pieces, axis=1)]
    return [_side_by_side(factors) for factors in zip(*parts, strict=True)]


def _side_by_side(parts: Sequence[Factor]) -> Factor:
    """One factor from those of different rows of the same samples."""
    first = parts[0]
    if isinstance(first, Rows):
        values = [part.value for part in parts if isinstance(part, Rows)]
        return first._replace(value=jnp.concatenate(values, 1))
    rights = [part.right for part in parts if not isinstance(part, Rows)]
    return first._replace(right=jnp.concatenate(rights, 1))


def wanted_by(structure: Structure, chosen: Sequence[Choice]) -> list[Variable]:
    """Variables of the graph that the factors are made of."""
    return [v for choice in chosen for v in _wanted(structure.leaves[choice.leaf], choice)]


def _wanted(leaf: Leaf, choice: Choice) -> list[Variable]:
    if choice.how == "gradient":
        return [] if isinstance(leaf.gradient, Literal) else [leaf.gradient]
    if choice.how in ("rows", "factors"):
        return [v for term in leaf.products + leaf.lookups for v in operands_of(term)]
    return []


class _Tile:
    """Values of the graph on one tile, with what each of them depends on."""

    def __init__(
        self,
        structure: Structure,
        values: dict[Variable, Array],
        shape: tuple[int, int],
        piece: int,
    ) -> None:
        self.structure = structure
        self.values = values
        self.samples, self.rows = shape
        self.piece = piece

    def factor(self, leaf: Leaf, choice: Choice) -> list[Factor]:
        if choice.how == "gradient":
            assert isinstance(leaf.gradient, Variable)
            value = self._led(self.values[leaf.gradient], leaf.gradient, rows=True)
            return [Rows(choice.leaf, _accumulated(value))]
        if choice.how == "rows" and choice.by_pieces:
            left, right = self._ends(leaf.products)
            return [Formed(choice.leaf, left, right.swapaxes(-1, -2), self.piece)]
        if choice.how == "rows":
            return [Rows(choice.leaf, self._formed(leaf))]
        if choice.how == "factors":
            left, right = self._ends(leaf.products or leaf.lookups)
            return [Outer(choice.leaf, choice.bias, left, right)]
        return []

    def _led(self, value: Array, variable: Variable, *, rows: bool) -> Array:
        """The value with its sample axis and, if asked for, its row axis, repeated if need be."""
        spread = self.structure.spread(variable)
        if not spread.samples:
            value = jnp.broadcast_to(value, (self.samples, *value.shape))
        if rows and not spread.rows:
            shape = (value.shape[0], self.rows, *value.shape[1:])
            value = jnp.broadcast_to(value[:, None], shape)
        return value

    def _pair(self, term: Product, *, left_rows: bool, right_rows: bool) -> tuple[Array, Array]:
        """Both operands, ``(n, [r,] B, T, d)``."""
        pair = []
        for operand, rows in ((term.left, left_rows), (term.right, right_rows)):
            value = self._led(self.values[operand.variable], operand.variable, rows=rows)
            value = operand.canonical(value, 2 if rows else 1)
            ids = operand.vocabulary is not None
            pair.append(masked_ids(operand, value) if ids else _accumulated(value))
        left, right = pair
        for number in term.scale:
            assert isinstance(number, Literal)
            right = right * jnp.asarray(number.value, right.dtype)
        return left, right

    def _ends(self, terms: Sequence[Product]) -> tuple[Array, Array]:
        """Left ``(n, B, T, d)`` and right ``(n, r, B, T, e)``: the one that varies is right."""
        left_varies = any(term.left.varies for term in terms)
        right_varies = not left_varies
        pairs = [self._pair(t, left_rows=left_varies, right_rows=right_varies) for t in terms]
        left, right = (_end_to_end([pair[side] for pair in pairs], terms) for side in (0, 1))
        return (right, left) if left_varies else (left, right)

    def _formed(self, leaf: Leaf) -> Array:
        """Rows ``(n, r, ...)`` from the operands."""
        terms = leaf.products + leaf.lookups
        left_varies = any(term.left.varies for term in terms)
        right_varies = any(term.right.varies for term in terms) or not left_varies
        if left_varies and right_varies:
            pairs = [self._pair(t, left_rows=True, right_rows=True) for t in leaf.products]
            spec = "nrbte,nrbtd->nrbed"
        elif left_varies:
            pairs = [self._pair(t, left_rows=True, right_rows=False) for t in leaf.products]
            spec = "nbte,nrbtd->nrbed"
        else:
            pairs = [self._pair(t, left_rows=False, right_rows=True) for t in leaf.products]
            spec = "nrbte,nbtd->nrbed"
        formed: Array | None = None
        if pairs:
            left, right = (_end_to_end([p[side] for p in pairs], terms) for side in (0, 1))
            formed = _multiplied(spec, right, left)
        for term in leaf.lookups:
            ids, rows = self._pair(term, left_rows=False, right_rows=True)
            added = _scattered(ids, rows, term.left.vocabulary or 0)
            formed = added if formed is None else formed + added
        assert formed is not None
        return formed


def _multiplied(spec: str, right: Array, left: Array) -> Array:
    """``(n, r, B, e, d)``; the batch axis is left out of the product where it has one entry."""
    if right.shape[-3] == 1:
        flat, right, left = spec.replace("b", ""), right.squeeze(-3), left.squeeze(-3)
        return jnp.einsum(flat, right, left, precision="highest")[:, :, None]
    return jnp.einsum(spec, right, left, precision="highest")


def _end_to_end(parts: list[Array], terms: Sequence[Product]) -> Array:
    """Operands of several products, positions laid end to end."""
    if len(parts) == 1:
        return parts[0]
    axis = -1 if terms[0].left.vocabulary is not None and parts[0].ndim == 3 else -2
    return jnp.concatenate(parts, axis)


def _scattered(ids: Array, rows: Array, vocabulary: int) -> Array:
    """Rows ``(n, r, B, T, e)`` added up by index, ``(n, r, B, e, V)``."""
    if vocabulary <= ONE_HOT_UP_TO:
        one_hot = (ids[..., None] == jnp.arange(vocabulary)).astype(rows.dtype)
        return _multiplied("nrbte,nbtd->nrbed", rows, one_hot)
    n, r, b, _, e = rows.shape
    index = jnp.where(ids < 0, vocabulary, ids)
    sample, batch = jnp.arange(n)[:, None, None], jnp.arange(b)[None, :, None]
    table = jnp.zeros((n, b, vocabulary, r, e), rows.dtype)
    table = table.at[sample, batch, index].add(rows.transpose(0, 2, 3, 1, 4), mode="drop")
    return table.transpose(0, 3, 1, 4, 2)


def _accumulated(value: Array) -> Array:
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))
