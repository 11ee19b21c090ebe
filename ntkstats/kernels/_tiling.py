"""Tile sizes from a memory budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from ntkstats._compat import pullback_bytes
from ntkstats._device import device_bytes
from ntkstats._lanes import prefers_unrolled
from ntkstats.errors import BudgetError
from ntkstats.kernels._engines import accumulator
from ntkstats.kernels._jacobian import head_outputs
from ntkstats.kernels._tiles import Tiling, count, kernel_dtype
from ntkstats.kernels._types import Task
from ntkstats.kernels.contraction._outer import SCRATCH
from ntkstats.kernels.contraction._rows import is_wide
from ntkstats.kernels.structured._choice import Choice
from ntkstats.kernels.structured._structure import Structure
from ntkstats.kernels.structured._structured import wanted_by
from ntkstats.models import Model
from ntkstats.typing import Inputs, Params, PyTree, State

# A tile costs about as much to compile as it saves in one run (0.15 s against 0.5 s, 3 layers);
# beyond this many, compiling takes minutes.
MAX_UNROLLED_TILES = 128


class Footprint(NamedTuple):
    """Bytes that one sample (or the batch, if samples interact) and one Jacobian row need.

    Attributes
    ----------
    row
        One row of the Jacobian in the accumulation dtype.
    widths
        Number of parameters in each leaf.
    entry
        One entry of the kernel.
    forward
        What the forward pass leaves behind for the pullback, and needs itself.
    backward
        What pulling back one cotangent needs besides.
    scratch
        What a factored contraction needs for each pair of samples, as far as it is not cut.
    formed, piece
        What the longest row that is written out by pieces takes, and such a piece at most.
    """

    row: int
    widths: tuple[int, ...]
    entry: int
    forward: int
    backward: int
    scratch: int = 0
    formed: int = 0
    piece: int = 0


class Room(NamedTuple):
    """How the memory of a computation is shared out.

    Attributes
    ----------
    budget_bytes
        Bound on transients and result over all lanes.
    lanes
        Number of members computed side by side.
    result_bytes
        Bytes of the result of one lane.
    tiles
        Tiles alive at once when there are several: 2 for a symmetric kernel, 1 for a diagonal
        and for each side of a cross kernel.
    copies
        Tiles that a contraction may copy into matrix layout: 1, and 0 for a diagonal, which has
        no contraction.
    sides
        Sides that share what the result leaves: 2 for a cross kernel.
    passing
        Tiles of other devices that are alive besides, however few tiles there are.
    """

    budget_bytes: int
    lanes: int
    result_bytes: int
    tiles: int = 1
    copies: int = 0
    sides: int = 1
    passing: int = 0


def default_budget() -> int:
    """Bytes a kernel may use if nobody says: half of the device's memory, at most 4 GiB on CPU.

    The total is used, not what happens to be free, so that tile sizes (and with them the last
    digits) do not depend on the machine's mood.
    """
    total = device_bytes()
    cap = 4 * 2**30 if jax.default_backend() == "cpu" else total
    return int(min(total // 2, cap))


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all array leaves."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def footprint(model: Model, task: Task, params: Params, state: State, x: Inputs) -> Footprint:
    """Find, without computing, what one sample of an uncoupled model (or the batch) needs."""
    leaves = jax.tree.leaves(params)
    widths = tuple(math.prod(leaf.shape) for leaf in leaves)
    types = [(leaf.dtype, accumulator(leaf.dtype)) for leaf in leaves]
    row = sum(n * wide.itemsize for n, (_, wide) in zip(widths, types, strict=True))
    # Rows in half precision exist beside their copies in the accumulation dtype.
    half = sum(
        n * own.itemsize for n, (own, wide) in zip(widths, types, strict=True) if own != wide
    )
    batch = x if model.coupled else jax.tree.map(_first, x)

    def outputs(params: Params, state: State, batch: Inputs) -> PyTree:
        return head_outputs(model, task.head, params, state, batch)

    forward, backward = pullback_bytes(outputs, params, state, batch)
    return Footprint(row, widths, kernel_dtype(params).itemsize, forward, backward + half)


def structured_footprint(
    need: Footprint, structure: Structure, part: Sequence[Choice], piece: int
) -> Footprint:
    """The same for a group of parameters of the structured engine.

    Parameters
    ----------
    need
        Of the model.
    structure, part
        The cut pullback, and the arrays of the group.
    piece
        From `piece_bytes`.
    """
    active = [choice for choice in part if choice.how not in ("zero", "bias")]
    scale = need.entry // 4
    sums = [c for c in active if c.how == "factors" and c.batch * c.positions > 1]
    scratch = max((c.batch * c.positions * (c.positions + c.right) for c in sums), default=0)
    widths = [math.prod(structure.leaves[c.leaf].shape) for c in active if c.by_pieces]
    return need._replace(
        row=scale * sum(choice.row_bytes for choice in active),
        widths=tuple(
            math.prod(structure.leaves[c.leaf].shape) for c in active if c.how != "factors"
        )
        + (2**62,) * min(2, sum(c.how == "factors" for c in active)),
        backward=structure.live_bytes(wanted_by(structure, active)),
        forward=need.forward + scale * sum(choice.sample_bytes for choice in active),
        scratch=need.entry * scratch,
        formed=need.entry * max(widths, default=0),
        piece=piece,
    )


def piece_bytes(room: Room) -> int:
    """Bytes of rows that are written out at a time: enough for a fast product, and no more.

    On CPU memory that is used for the first time costs more than the product that fills it.
    """
    usual = 2**23 if jax.default_backend() == "cpu" else 2**29
    return max(1, min(usual, room.budget_bytes // room.lanes // 8))


def _first(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)


def tile_bytes(
    model: Model, task: Task, need: Footprint, room: Room, samples: int, rows: int
) -> int:
    """Bytes alive at most with tiles of that size, the result not counted.

    The others are held while a tile is computed, or while two are contracted.
    """
    tile = samples * rows * need.row
    forward = need.forward * (1 if model.coupled else samples)
    computing = forward + samples * rows * need.backward
    scratch = min(4 * SCRATCH, need.scratch * samples**2 * rows)
    contracting = room.copies * (tile + _block_bytes(task, need, samples, rows) + scratch)
    contracting += 2 * min(need.piece, samples * rows * need.formed)
    return (room.tiles + room.passing) * tile + max(computing, contracting)


def _block_bytes(task: Task, need: Footprint, samples: int, rows: int) -> int:
    """Products of two tiles: one for each wide leaf and one for all narrow ones, and their sum."""
    entries = {
        "all": (samples * rows) ** 2,
        "sum": samples**2,
        "each": rows * samples**2,
    }[task.pairing]
    wide = sum(is_wide(task.pairing, width, samples, rows) for width in need.widths)
    return (wide + 2) * entries * need.entry


def choose_tiling(model: Model, task: Task, need: Footprint, room: Room) -> Tiling:
    """Largest tile that fits the budget.

    Parameters
    ----------
    model, task, need
        What is computed, and its footprint.
    room
        What it may use.

    Raises
    ------
    BudgetError
        When a single row of a single sample does not fit.
    """
    available = (room.budget_bytes // room.lanes - room.result_bytes) // room.sides

    def fits(samples: int, rows: int) -> bool:
        # A tile that is the whole has no partner.
        whole = samples == task.n_samples and rows == task.n_rows
        tiles = room._replace(tiles=1) if whole else room
        return tile_bytes(model, task, need, tiles, samples, rows) <= available

    samples, rows = task.n_samples, task.n_rows
    if not fits(samples, rows):
        samples = _largest(lambda n: fits(n, rows), task.n_samples)
    if samples == 0:
        samples, rows = 1, _largest(lambda r: fits(1, r), task.n_rows)
    if rows == 0:
        least = (
            tile_bytes(model, task, need, room, 1, 1) * room.sides + room.result_bytes
        ) * room.lanes
        message = (
            f"budget_bytes={room.budget_bytes:,} for {room.lanes} lane(s), but the result "
            f"({room.result_bytes:,} bytes a lane) and one Jacobian row at a time need {least:,}. "
            "Raise budget_bytes, use fewer samples, or a reduced kernel (outputs='trace' or "
            "'probe')."
        )
        raise BudgetError(message)
    # Even tiles overlap less than full ones with a ragged last.
    samples = count(task.n_samples, count(task.n_samples, samples))
    return Tiling(samples, count(task.n_rows, count(task.n_rows, rows)))


def with_unrolling(tiling: Tiling, task: Task, model: Model, example: PyTree) -> Tiling:
    """Unroll the loops over tiles where convolutions on CPU ask for it.

    ``example`` are the arguments of ``model.apply``.
    """
    tiles = count(task.n_samples, tiling.samples) * count(task.n_rows, tiling.rows)
    few = tiles * (tiles + 1) // 2 <= MAX_UNROLLED_TILES
    unroll = tiles == 1 or (few and prefers_unrolled(model.apply, *example))
    return tiling._replace(unroll=unroll)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """Largest n in 0..most for which the monotone predicate holds (0 if none)."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
