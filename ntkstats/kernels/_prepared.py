"""A prepared kernel computation: pure functions of parameters, state and inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax

from ntkstats.errors import KernelError, ParamsError
from ntkstats.kernels import _tiles
from ntkstats.kernels._describe import described, summary
from ntkstats.kernels._engines import ReferenceEngine, StructuredEngine
from ntkstats.kernels._tiles import Side, Stream, Tiling
from ntkstats.kernels._types import KernelMatrix, Task, n_samples
from ntkstats.models import Model, layer_names
from ntkstats.typing import Array, Inputs, Params, State


class Part(NamedTuple):
    """One side of a kernel as far as it is known before the numbers are."""

    model: Model
    task: Task
    streams: tuple[Stream, ...]


@dataclass(frozen=True, eq=False)
class KernelPlan:
    """A prepared kernel computation; its methods are pure and may be jitted, scanned and vmapped.

    Made by [`plan`][ntkstats.kernels.plan].

    Attributes
    ----------
    model
        The model.
    task
        What is computed.
    streams, diagonal_streams
        Groups of parameters with the engine and tiles of each, for the matrix (None when it was
        planned without pairs) and for the diagonal.
    signs
        ``(D, C)`` random sign vectors of ``outputs="probe"``, fixed at planning time so that
        kernels of one run share them; None otherwise.
    budget_bytes
        The bound the tiles were chosen for.
    method
        Name of the engine.
    """

    model: Model
    task: Task
    streams: tuple[Stream, ...] | None
    diagonal_streams: tuple[Stream, ...]
    signs: Array | None
    budget_bytes: int
    method: str

    @property
    def tiling(self) -> Tiling | None:
        """Tiles of the matrix (of its first group of parameters); None without pairs."""
        return None if self.streams is None else self.streams[0].tiling

    @property
    def diagonal_tiling(self) -> Tiling:
        """Tiles of the diagonal."""
        return self.diagonal_streams[0].tiling

    def gram(
        self,
        params: Params,
        state: State,
        x: Inputs,
        *,
        weight: Array | None = None,
        cotangents: Array | None = None,
    ) -> KernelMatrix:
        """Symmetric kernel on ``x``.

        Parameters
        ----------
        params, state, x
            As planned: same structure and shapes.
        weight
            ``(N,)`` sample weights; entry ``(i, j)`` is scaled by ``sqrt(w_i w_j)``.
        cotangents
            ``(N, R, C)`` for a plan made with ``outputs="given"``.

        Raises
        ------
        KernelError
        """
        side = self._side(params, state, x, cotangents, weight)
        return _gram(self._part(), None, (side,), self.method)

    def cross(
        self,
        other: KernelPlan,
        left: tuple[Params, State, Inputs],
        right: tuple[Params, State, Inputs],
        *,
        weights: tuple[Array | None, Array | None] = (None, None),
    ) -> KernelMatrix:
        """Kernel ``(n, m)`` between two inputs, or one input at two parameter vectors.

        Parameters
        ----------
        other
            Plan of the right side.
        left, right
            Parameters, state and inputs of the two sides.
        weights
            Sample weights of the two sides, ``(N,)`` and ``(M,)``.

        Raises
        ------
        KernelError, ParamsError
        """
        check_sides(self.task, other.task, left[0], right[0])
        sides = (
            self._side(*left, None, weights[0]),
            other._side(*right, None, weights[1]),
        )
        parts = matched(self._part(), other._part())
        return _gram(*parts, sides, parts[0].streams[0].engine.name)

    def diagonal(
        self,
        params: Params,
        state: State,
        x: Inputs,
        *,
        weight: Array | None = None,
        cotangents: Array | None = None,
    ) -> Array:
        """``(leaf, N, R)`` squared norms of the Jacobian rows, without pairs.

        Parameters
        ----------
        params, state, x, weight, cotangents
            As for `gram`.

        Raises
        ------
        KernelError
        """
        side = self._side(params, state, x, cotangents, weight)
        part = Part(self.model, self.task, self.diagonal_streams)
        return _diagonal(part, side)

    @property
    def coverage(self) -> float:
        """Share of the parameters whose gradients the engine knows how to take apart."""
        engine = self.diagonal_streams[0].engine
        return engine.structure.coverage if isinstance(engine, StructuredEngine) else 0.0

    @property
    def summary(self) -> str:
        """The plan in one line; ``print(plan)`` adds a table of all parameter arrays."""
        return summary(self)

    def __str__(self) -> str:
        return described(self)

    def _part(self) -> Part:
        if self.streams is None:
            message = (
                "This plan was made with pairs=False; expected one made with pairs=True for a "
                "matrix. Plan again, or ask for the diagonal."
            )
            raise KernelError(message)
        return Part(self.model, self.task, self.streams)

    def _side(
        self,
        params: Params,
        state: State,
        x: Inputs,
        cotangents: Array | None,
        weight: Array | None,
    ) -> Side:
        task = self.task
        given = self.signs if task.outputs == "probe" else cotangents
        n = n_samples(x)
        if n != task.n_samples:
            message = (
                f"x has {n} samples; expected {task.n_samples}, the number this was planned for. "
                "Plan again for these inputs."
            )
            raise KernelError(message)
        if weight is not None and weight.shape != (n,):
            message = f"weight has shape {weight.shape}; expected ({n},), one for each sample."
            raise KernelError(message)
        expected = (n, task.n_rows, task.n_outputs)
        if task.outputs == "given" and (given is None or given.shape != expected):
            message = (
                f"cotangents of shape {None if given is None else given.shape} were given to a "
                f"plan with outputs='given'; expected {expected}, for (N, R, C). Pass them as "
                "cotangents=."
            )
            raise KernelError(message)
        return Side(params, state, x, given, weight)


def matched(left: Part, right: Part) -> tuple[Part, Part]:
    """The two sides with engines that write the same arrays in the same way."""
    kinds = [[stream.engine.kinds for stream in part.streams] for part in (left, right)]
    if kinds[0] == kinds[1]:
        return left, right
    # Inputs of another size may be cut another way; rows written out always fit each other.
    engines = [_reference(part.model, part.task.head) for part in (left, right)]
    ours, theirs = (
        part._replace(streams=(Stream(engine, part.streams[0].tiling),))
        for part, engine in zip((left, right), engines, strict=True)
    )
    return ours, theirs


@lru_cache(maxsize=64)
def _reference(model: Model, head: str) -> ReferenceEngine:
    """One engine for equal arguments, so that what was compiled for it is found again."""
    return ReferenceEngine(model, head)


@partial(jax.jit, static_argnums=(0, 1, 3))
def _gram(left: Part, right: Part | None, sides: tuple[Side, ...], method: str) -> KernelMatrix:
    """The matrix between two sides, or of one side with itself, and what it means."""
    task, symmetric = left.task, right is None
    other = left if right is None else right
    raw, leaf_traces = _tiles.gram(
        (task, other.task),
        (sides[0], sides[-1]),
        tuple(zip(left.streams, other.streams, strict=True)),
        symmetric=symmetric,
    )
    return kernel_matrix(left, raw, leaf_traces, sides[0].params if symmetric else None, method)


def kernel_matrix(
    part: Part,
    raw: Array,
    leaf_traces: Array,
    params: Params | None,
    method: str,
    padding: int = 0,
) -> KernelMatrix:
    """What `_tiles.gram` computed, with its meaning.

    Parameters
    ----------
    part
        The left side.
    raw, leaf_traces
        What was computed.
    params
        Parameters of a symmetric kernel; None for a cross kernel, which has no layer traces.
    method, padding
        See `KernelMatrix`.
    """
    model, task, _ = part
    matrix, draws = raw, None
    layers: dict[str, Array] = {}
    if params is not None:
        # Each draw alone is an unbiased estimate, so layer traces are means over draws too.
        draws_seen = task.n_rows if task.pairing == "each" else 1
        layers = _sum_by_layer(leaf_traces / draws_seen, params)
    if task.pairing == "all":
        matrix = raw.reshape(raw.shape[0] * raw.shape[1], -1)
    elif task.pairing == "each":
        matrix, draws = raw.mean(0), raw
    return KernelMatrix(
        matrix,
        draws,
        layers,
        outputs=task.outputs,
        head=task.head,
        n_samples=task.n_samples,
        n_outputs=task.n_outputs,
        average_outputs=task.average_outputs,
        method=method,
        covers=model.covers,
        padding=padding,
    )


@partial(jax.jit, static_argnums=0)
def _diagonal(part: Part, side: Side) -> Array:
    return _tiles.diagonal(part.task, side, part.streams)


def _sum_by_layer(per_leaf: Array, params: Params) -> dict[str, Array]:
    """Add the entries ``(leaf,)`` that belong to one layer."""
    sums: dict[str, Array] = {}
    for (layer, _), value in zip(layer_names(params), per_leaf, strict=True):
        sums[layer] = sums[layer] + value if layer in sums else value
    return sums


def check_sides(task: Task, other: Task, params: Params, other_params: Params) -> None:
    """Two sides must share their outputs and their parameter space."""
    if (task.head, task.outputs, task.n_outputs, task.n_rows) != (
        other.head,
        other.outputs,
        other.n_outputs,
        other.n_rows,
    ):
        message = (
            f"The two sides have {task.n_outputs} and {other.n_outputs} outputs a sample "
            f"({task.outputs!r} of {task.head!r}, {other.outputs!r} of {other.head!r}); a cross "
            "kernel expects the same on both. Give inputs of one kind."
        )
        raise KernelError(message)
    ours, theirs = (
        {name: leaf.shape for name, leaf in zip(layer_names(p), jax.tree.leaves(p), strict=True)}
        for p in (params, other_params)
    )
    if ours != theirs:
        name = next(k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k))
        message = (
            f"The parameters of the two sides differ in shape: {'/'.join(name)!r} has "
            f"{ours.get(name)} and {theirs.get(name)}. A cross kernel expects two values of the "
            "same parameters. Pass cross_params of the same model."
        )
        raise ParamsError(message)
