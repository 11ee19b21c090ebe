"""Choose the engine of a kernel computation, its groups of parameters and its tiles."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

import jax

from ntkstats._compat import x64_enabled
from ntkstats._lanes import prefers_unrolled
from ntkstats.errors import BudgetError, EngineWarning, KernelError
from ntkstats.kernels._engines import ReferenceEngine, StructuredEngine
from ntkstats.kernels._precision import check_float64
from ntkstats.kernels._selftest import disagreement
from ntkstats.kernels._tiles import Stream, Tiling, count
from ntkstats.kernels._tiling import (
    Footprint,
    Room,
    choose_tiling,
    footprint,
    piece_bytes,
    structured_footprint,
    with_unrolling,
)
from ntkstats.kernels._types import Task, n_samples
from ntkstats.kernels.structured._choice import Choice, choices
from ntkstats.kernels.structured._cost import evaluation_cost
from ntkstats.kernels.structured._structure import Structure, structure_of
from ntkstats.kernels.structured._structured import wanted_by
from ntkstats.models import Model, head_of
from ntkstats.typing import Inputs, Params, State

METHODS = ("auto", "structured", "reference")

# On CPU a convolution over all rows at once runs several times slower than over a few at a time.
MOST_PIECES = 16


class Share(NamedTuple):
    """What each of several devices computes.

    Attributes
    ----------
    by
        ``"rows"`` or ``"parameters"``.
    devices
        Number of devices.
    samples
        Samples of one device.
    """

    by: str
    devices: int
    samples: int


class Request(NamedTuple):
    """Everything about a plan that is known before the shapes are."""

    head: str | None
    outputs: str
    method: str
    budget_bytes: int
    lanes: int
    draws: int
    average_outputs: bool
    n_rows: int
    pairs: bool
    columns: int | None
    wide: bool
    share: Share | None = None


Cut: TypeAlias = tuple[Structure | None, str | None]
_STRUCTURES: weakref.WeakKeyDictionary[Model, dict[Hashable, Cut]] = weakref.WeakKeyDictionary()


class Decision(NamedTuple):
    """What was decided for a request and shapes.

    Attributes
    ----------
    task
        What is computed.
    streams, diagonal_streams
        See `KernelPlan`.
    fleeting
        Values of a trace around it are inside: it must not be used again elsewhere.
    """

    task: Task
    streams: tuple[Stream, ...] | None
    diagonal_streams: tuple[Stream, ...]
    fleeting: bool = False


Arguments = tuple[Params, State, Inputs]


def decide(
    model: Model,
    request: Request,
    heads: dict[str, jax.ShapeDtypeStruct],
    shapes: Arguments,
    numbers: Arguments | None,
) -> Decision:
    """Choose engine, groups and tiles.

    Parameters
    ----------
    model, request
        What is asked for.
    heads
        Shapes of the outputs.
    shapes
        Shapes of parameters, state and inputs.
    numbers
        The same as arrays, for a test of the engine; None inside a trace.
    """
    params, state, x = shapes
    head = head_of(heads, request.head)
    if request.wide:
        check_float64(model, params, state, x, head)
    outputs = request.outputs
    n_outputs = math.prod(heads[head].shape[1:])
    rows = {"sum": 1, "probe": request.draws, "given": request.n_rows}.get(outputs, n_outputs)
    n = n_samples(x) if request.share is None else request.share.samples
    task = Task(outputs, head, n, n_outputs, rows, request.average_outputs)
    need = footprint(model, task, params, state, x)
    structure = _structure(model, request, head, shapes, numbers)
    planner = _Planner(model, task, request, shapes, need)
    diagonal = planner.streams(structure, planner.diagonal_room(), pairs=False)
    pairs = None
    if request.pairs:
        pairs = planner.streams(structure, planner.pairs_room(), pairs=True)
    fleeting = structure is not None and structure.graph.holds_tracers()
    return Decision(task, pairs, diagonal, fleeting)


def _structure(
    model: Model, request: Request, head: str, shapes: Arguments, numbers: Arguments | None
) -> Structure | None:
    """The cut pullback, or None if the reference engine has to do."""
    if request.method == "reference":
        return None
    if model.coupled:
        if request.method == "structured":
            message = (
                "method='structured' was given for a model whose samples interact; it expects "
                "samples that do not. Use method='reference' (or 'auto', which does)."
            )
            raise KernelError(message)
        return None
    structure, reason = _cut(model, head, shapes, numbers)
    if structure is not None and all(leaf.rule == "zero" for leaf in structure.leaves):
        message = (
            f"No parameter reaches the outputs of {model.name}[{head}] on a differentiable path; "
            "expected at least one. Integer operations (argmax, rounding, casts), comparisons and "
            "stop_gradient have no derivative; measure an output before them."
        )
        raise KernelError(message)
    if reason is None:
        return structure
    message = (
        f"The structured engine cannot be used for {model.name}[{head}]: {reason} Kernels are "
        "computed by the reference engine: exact, but slower."
    )
    if request.method == "structured":
        raise KernelError(message)
    warnings.warn(message, EngineWarning, stacklevel=2)
    return None


def _cut(model: Model, head: str, shapes: Arguments, numbers: Arguments | None) -> Cut:
    """The cut pullback of one sample, or why there is none; remembered as long as the model."""
    params, state, x = shapes
    one = jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), x)
    leaves, tree = jax.tree.flatten((params, state))
    tested = numbers is not None
    key = (head, tested, tuple(leaves), tree, str(one), x64_enabled(), jax.default_backend())
    known = _STRUCTURES.setdefault(model, {})
    if key in known:
        return known[key]
    structure, reason = None, None
    try:
        structure = structure_of(model, head, *shapes)
        if numbers is not None:
            reason = disagreement(structure, model, head, *numbers)
    except Exception as error:  # whatever a JAX that is not known yet may raise
        reason = f"{type(error).__name__}: {error}"
    if structure is None or not structure.graph.holds_tracers():
        known[key] = structure, reason
    return structure, reason


class _Planner(NamedTuple):
    """What all groups of parameters have in common."""

    model: Model
    task: Task
    request: Request
    shapes: Arguments
    need: Footprint

    @property
    def rows_shared(self) -> bool:
        """Whether the samples are those of one device out of several."""
        return self.request.share is not None and self.request.share.by == "rows"

    @property
    def most_samples(self) -> int:
        """Samples of the longer side, on all devices."""
        share = self.request.share
        own = self.task.n_samples
        if share is not None and self.rows_shared:
            own *= share.devices
        return max(own, self.request.columns or 0)

    def diagonal_room(self) -> Room:
        task, request = self.task, self.request
        leaves = len(jax.tree.leaves(self.shapes[0]))
        norms = leaves * task.n_samples * task.n_rows * self.need.entry
        return Room(request.budget_bytes, request.lanes, norms)

    def pairs_room(self) -> Room:
        task, request = self.task, self.request
        columns = self.most_samples if request.columns is None else request.columns
        paired = task.pairing == "all"
        entries = task.n_samples * columns * (task.n_rows**2 if paired else 1)
        matrices = task.n_rows + 1 if task.pairing == "each" else 1
        result = matrices * entries * self.need.entry
        room = Room(request.budget_bytes, request.lanes, result, copies=1)
        if self.rows_shared and request.columns is None:
            # One is kept, one goes round, and one arrives.
            return room._replace(passing=2)
        if self.rows_shared:
            return room._replace(sides=2, passing=1)
        if request.share is not None:
            # The part of this device, and the sum of all.
            room = room._replace(result_bytes=2 * result)
        if request.columns is None:
            return room._replace(tiles=2)
        return room._replace(sides=2)

    def streams(
        self, structure: Structure | None, room: Room, *, pairs: bool
    ) -> tuple[Stream, ...]:
        """Groups of parameters with engines and tiles."""
        if structure is None:
            engine = ReferenceEngine(self.model, self.task.head)
            return (Stream(engine, self.tiling(self.need, room)),)
        chosen = choices(structure, self.task, pairs=pairs, columns=self.most_samples)
        # One group unless that takes tiles; both sides of a cross kernel must have the same.
        most = sum(c.how not in ("zero", "bias") for c in chosen)
        single = self.request.columns is not None or not pairs
        piece = piece_bytes(room)
        counts = [1] if single else sorted({min(most, 2**k) for k in range(12)} - {0})
        share = self.request.share
        if share is not None and share.by == "parameters" and pairs:
            counts = [max(1, min(most, share.devices))]
        best: tuple[float, list[tuple[tuple[Choice, ...], Tiling]]] | None = None
        error: BudgetError | None = None
        for groups in counts:
            try:
                parts = [
                    (
                        part,
                        self.tiling(structured_footprint(self.need, structure, part, piece), room),
                    )
                    for part in split(structure, chosen, groups)
                ]
            except BudgetError as reason:
                error = reason
                continue
            price = sum(self.price(structure, *part) for part in parts)
            if best is None or price < best[0]:
                best = price, parts
            if groups == 1 and self.tiles(parts[0][1]) == 1:
                break
        if best is None:
            assert error is not None
            engine = ReferenceEngine(self.model, self.task.head)
            return (Stream(engine, self.tiling(self.need, room)),)
        pieces = 1
        if prefers_unrolled(self.model.apply, *self.shapes):
            pieces = min(MOST_PIECES, self.task.n_rows)
        return tuple(
            Stream(StructuredEngine(structure, part, pieces, piece), tiling)
            for part, tiling in best[1]
        )

    def tiling(self, need: Footprint, room: Room) -> Tiling:
        tiling = choose_tiling(self.model, self.task, need, room)
        return with_unrolling(tiling, self.task, self.model, self.shapes)

    def part_need(self, structure: Structure, part: Sequence[Choice], piece: int) -> Footprint:
        return structured_footprint(self.need, structure, part, piece)

    def tiles(self, tiling: Tiling) -> int:
        task = self.task
        return count(task.n_samples, tiling.samples) * count(task.n_rows, tiling.rows)

    def price(self, structure: Structure, part: Sequence[Choice], tiling: Tiling) -> float:
        """Operations of a symmetric kernel: every tile is made once for each it meets."""
        cost = evaluation_cost(structure, wanted_by(structure, part))
        task = self.task
        once = task.n_samples * (cost.sample + task.n_rows * cost.row)
        return once * (self.tiles(tiling) + 1) / 2 + sum(choice.flops for choice in part)


def split(structure: Structure, chosen: Sequence[Choice], groups: int) -> list[tuple[Choice, ...]]:
    """Groups of arrays of about equal size, in the order in which they are pulled back.

    A group that needs only late layers then does not run the pullback through the early ones.
    """
    order = {v: k for k, eqn in enumerate(structure.graph.equations) for v in eqn.outputs}

    def position(choice: Choice) -> int:
        return max((order.get(v, -1) for v in wanted_by(structure, [choice])), default=-1)

    active = sorted((c for c in chosen if c.how not in ("zero", "bias")), key=position)
    rest = tuple(c for c in chosen if c.how in ("zero", "bias"))
    total = sum(c.row_bytes for c in active) or 1
    parts: list[list[Choice]] = [[] for _ in range(groups)]
    before = 0
    for choice in active:
        middle = before + choice.row_bytes / 2
        parts[min(groups - 1, int(groups * middle / total))].append(choice)
        before += choice.row_bytes
    filled = [tuple(part) for part in parts if part]
    return [filled[0] + rest, *filled[1:]] if filled else [rest]
