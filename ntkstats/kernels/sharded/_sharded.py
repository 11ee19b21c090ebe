"""Kernels on many devices: samples spread by rows, or parameters shared out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import PartitionSpec

from ntkstats._compat import inside_trace, is_tracer
from ntkstats.errors import KernelError
from ntkstats.kernels._decide import Share
from ntkstats.kernels._plan import as_inputs, plan, weight_of
from ntkstats.kernels._precision import at_precision
from ntkstats.kernels._prepared import KernelPlan, Part, check_sides, kernel_matrix, matched
from ntkstats.kernels._tiles import Side, Stream
from ntkstats.kernels._tiling import default_budget
from ntkstats.kernels._types import KernelMatrix, n_samples
from ntkstats.kernels.sharded import _ring, _shares
from ntkstats.kernels.sharded._placement import (
    Axis,
    agreed,
    axis_of,
    by_samples,
    on_every_device,
    samples_here,
    values_here,
)
from ntkstats.models import Model, Probe
from ntkstats.typing import Array, Inputs, Params, State

SHARDS = ("rows", "parameters")

Place: TypeAlias = tuple[Params, State, Inputs]


def sharded_ntk(
    model: Model,
    places: Sequence[Place],
    options: dict[str, Any],
    *,
    mesh: Any,
    mesh_axis: str | None,
    shard: str,
    precision: str | None,
) -> KernelMatrix:
    """`empirical_ntk` on the devices of a mesh.

    Parameters
    ----------
    model
        The model.
    places
        Parameters, state and probe; twice for a cross kernel.
    options
        Those of `plan`.
    mesh, mesh_axis, shard, precision
        See `empirical_ntk`.

    Raises
    ------
    KernelError, HeadError, ModelError, ProbeError, ParamsError, BudgetError, PrecisionError
    """
    axis = axis_of(mesh, mesh_axis)
    _check_concrete(places)
    probes = [probe for *_, probe in places]
    trees = [(params, state, as_inputs(probe)) for params, state, probe in places]

    def run(*trees: Place) -> KernelMatrix:
        def planned() -> list[KernelPlan]:
            _check_shard(model, shard)
            return _plans(model, trees, probes, axis, shard, wide=precision == "float64", **options)

        plans = agreed(axis, planned, partial(_described, shard, trees, probes))
        counts = tuple(n_samples(x) for *_, x in trees)
        weights = _weights(axis, probes, counts, shard)
        sides = tuple(
            Side(
                on_every_device(axis, params),
                on_every_device(axis, state),
                by_samples(axis, x) if shard == "rows" else on_every_device(axis, x),
                on_every_device(axis, prepared.signs),
                on_every_device(axis, weight),
            )
            for prepared, (params, state, x), weight in zip(plans, trees, weights, strict=True)
        )
        parts = tuple(Part(p.model, p.task, p.streams or ()) for p in plans)
        if len(parts) > 1:
            check_sides(parts[0].task, parts[1].task, trees[0][0], trees[1][0])
            parts = matched(*parts)
        compute = _by_rows if shard == "rows" else _by_parameters
        return compute(axis, parts, counts, sides)

    return at_precision(precision, run, *trees)


# --- checks and plans -------------------------------------------------------------------------


def _check_concrete(places: Sequence[Place]) -> None:
    if inside_trace() or any(map(is_tracer, jax.tree.leaves(places))):
        message = (
            "mesh= was given inside a function that JAX is tracing (jit, scan, vmap or grad); "
            "expected concrete arrays, since they are put on the devices from the host. Call it "
            "outside: it is compiled anyway."
        )
        raise KernelError(message)


def _check_shard(model: Model, shard: str) -> None:
    if shard not in SHARDS:
        message = f"shard={shard!r} was given; expected one of {SHARDS}."
        raise KernelError(message)
    if shard == "rows" and isinstance(model, Model) and model.coupled:
        message = (
            "shard='rows' was given for a model whose samples interact; expected samples that do "
            "not, since every device sees only its own. Use shard='parameters', or no mesh."
        )
        raise KernelError(message)


def _plans(
    model: Model,
    trees: Sequence[Place],
    probes: Sequence[Probe | Inputs],
    axis: Axis,
    shard: str,
    *,
    wide: bool,
    budget_bytes: int | None,
    **options: Any,
) -> list[KernelPlan]:
    """A plan for what one device does, on each side."""
    if budget_bytes is None:
        budget_bytes = default_budget() // axis.sharing_memory
    options["budget_bytes"] = budget_bytes
    checked = [_checked(probe, x) for probe, (*_, x) in zip(probes, trees, strict=True)]
    plans = []
    for side, ((params, state, x), probe) in enumerate(zip(trees, checked, strict=True)):
        n = n_samples(x)
        share = Share(shard, axis.size, axis.share(n) if shard == "rows" else n)
        other = trees[1 - side][2] if len(trees) > 1 else None
        here = values_here(params), values_here(state), probe
        plans.append(plan(model, *here, cross=other, share=share, wide=wide, **options))
    return plans


def _checked(probe: Probe | Inputs, x: Inputs) -> Probe:
    """The samples that this process has, none of them not finite."""
    here = samples_here(x)
    same = isinstance(probe, Probe) and all(
        a is b for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(probe.x), strict=True)
    )
    return probe if same else Probe(here)


def _described(
    shard: str,
    trees: Sequence[Place],
    probes: Sequence[Probe | Inputs],
    plans: Sequence[KernelPlan],
) -> object:
    """All that the programs of the devices depend on, and the small arrays they are given."""
    return shard, [
        (
            p.task,
            [_stream(stream) for stream in p.streams or ()],
            [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree)],
            [None if a is None else np.asarray(a).tobytes() for a in (p.signs, weight_of(probe))],
        )
        for p, tree, probe in zip(plans, trees, probes, strict=True)
    ]


def _stream(stream: Stream) -> object:
    engine = stream.engine
    return engine.name, engine.kinds, getattr(engine, "piece_bytes", None), stream.tiling


def _weights(
    axis: Axis, probes: Sequence[Probe | Inputs], counts: Sequence[int], shard: str
) -> list[np.ndarray | None]:
    """Sample weights of the sides; those that fill up the last devices count for nothing."""
    given = [weight_of(probe) for probe in probes]
    weights = [None if weight is None else np.asarray(weight, np.float64) for weight in given]
    if shard == "parameters":
        return weights
    missing = [axis.size * axis.share(n) - n for n in counts]
    if not any(missing) and all(weight is None for weight in weights):
        return weights
    full = [np.ones(n) if w is None else w for n, w in zip(counts, weights, strict=True)]
    return [np.pad(weight, (0, more)) for weight, more in zip(full, missing, strict=True)]


# --- rows -------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1, 2))
def _by_rows(
    axis: Axis, parts: tuple[Part, ...], counts: tuple[int, ...], sides: tuple[Side, ...]
) -> KernelMatrix:
    """Each device has some of the samples and computes their rows."""
    left, right = parts[0], parts[-1]
    task = left.task
    symmetric = len(parts) == 1
    ring = _ring.Ring(axis.name, axis.size)

    def rows(*sides: Side) -> tuple[Array, Array]:
        raw, leaf_traces = _ring.gram(
            ring,
            (task, right.task),
            (sides[0], sides[-1]),
            tuple(zip(left.streams, right.streams, strict=True)),
            symmetric=symmetric,
        )
        if not symmetric:
            columns = 2 if task.pairing == "all" else raw.ndim - 1
            raw = jax.lax.slice_in_dim(raw, 0, counts[1], axis=columns)
        return raw, leaf_traces

    whole, spread = PartitionSpec(), PartitionSpec(axis.name)
    of_side: Any = Side(whole, whole, spread, whole, whole)  # type: ignore[arg-type]
    of_rows = PartitionSpec(None, axis.name) if task.pairing == "each" else spread
    raw, leaf_traces = _on_devices(axis, rows, (of_side,) * len(sides), (of_rows, whole))(*sides)
    fill = axis.size * task.n_samples - counts[0]
    return kernel_matrix(
        left._replace(task=task._replace(n_samples=counts[0])),
        raw,
        leaf_traces,
        sides[0].params if symmetric else None,
        left.streams[0].engine.name,
        padding=fill * (task.n_rows if task.pairing == "all" else 1),
    )


def _on_devices(
    axis: Axis, fn: Callable[..., Any], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    # With check_vma JAX would add up gradients with respect to replicated parameters over the
    # devices; declaring the parameters varying avoids that, but then a model's own scan is
    # refused if it starts from constants. Without it every device differentiates for itself.
    return jax.shard_map(
        fn, mesh=axis.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


# --- parameters -------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1, 2))
def _by_parameters(
    axis: Axis, parts: tuple[Part, ...], _: tuple[int, ...], sides: tuple[Side, ...]
) -> KernelMatrix:
    """Each device has some of the parameters and computes their part of the whole kernel."""
    left, right = parts[0], parts[-1]
    symmetric = len(parts) == 1

    def part(*sides: Side) -> tuple[Array, Array]:
        return _shares.gram(
            axis.name,
            axis.size,
            (left.task, right.task),
            (sides[0], sides[-1]),
            list(zip(left.streams, right.streams, strict=True)),
            symmetric=symmetric,
        )

    whole = PartitionSpec()
    raw, leaf_traces = _on_devices(axis, part, whole, whole)(*sides)
    params = sides[0].params if symmetric else None
    return kernel_matrix(left, raw, leaf_traces, params, left.streams[0].engine.name)
