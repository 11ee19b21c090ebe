"""Gradients of strided convolutions without the zeros between their entries, on CPU.

Where a convolution skips entries, its transpose spreads them out with zeros in between, for which
CPU libraries are slower than for what is left without them. Here the entries of the result that
meet the same entries of the window are computed together, by one ordinary convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkstats._compat import Equation, Graph
from ntkstats.typing import Array


class Phase(NamedTuple):
    """Every ``step``-th entry of the result along one axis.

    Attributes
    ----------
    first
        The first of them.
    tap, taps
        First entry of the window that they meet, and how many.
    padding
        Of the operand, for the convolution with these alone.
    """

    first: int
    tap: int
    taps: int
    padding: tuple[int, int]


def without_zeros(graph: Graph) -> Graph:
    """The same graph with such convolutions taken apart."""
    return replace(graph, equations=[_rewritten(eqn) for eqn in graph.equations])


def _rewritten(eqn: Equation) -> Equation:
    if eqn.body is not None:
        return replace(eqn, body=without_zeros(eqn.body))
    if eqn.name != "conv_general_dilated" or not _spread_out(eqn.params):
        return eqn
    return replace(eqn, bind=partial(_by_phases, eqn.params, eqn.outputs[0].shape))


def _spread_out(params: dict[str, Any]) -> bool:
    plain = all(step == 1 for step in (*params["window_strides"], *params["rhs_dilation"]))
    return plain and any(step > 1 for step in params["lhs_dilation"])


def _by_phases(
    params: dict[str, Any], shape: tuple[int, ...], lhs: Array, rhs: Array
) -> Sequence[Array]:
    """The convolution, entry by entry of a period; see `jax.lax.conv_general_dilated`."""
    numbers = params["dimension_numbers"]
    steps = params["lhs_dilation"]
    axes = range(len(steps))
    phases = [
        _phases(
            lhs.shape[numbers.lhs_spec[2 + i]],
            shape[numbers.out_spec[2 + i]],
            rhs.shape[numbers.rhs_spec[2 + i]],
            steps[i],
            params["padding"][i],
        )
        for i in axes
    ]
    zero = jnp.zeros((), lhs.dtype)
    total = jnp.zeros(shape, lhs.dtype)
    for chosen in product(*phases):
        if any(phase.taps == 0 for phase in chosen):
            continue
        window, edges = rhs, [(0, 0, 0)] * len(shape)
        for i, phase in enumerate(chosen):
            axis = numbers.rhs_spec[2 + i]
            window = jax.lax.slice_in_dim(window, phase.tap, None, steps[i], axis)
        part = jax.lax.conv_general_dilated(
            lhs,
            window,
            window_strides=(1,) * len(steps),
            padding=[phase.padding for phase in chosen],
            dimension_numbers=numbers,
            feature_group_count=params["feature_group_count"],
            batch_group_count=params["batch_group_count"],
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )
        for i, phase in enumerate(chosen):
            axis = numbers.out_spec[2 + i]
            left = shape[axis] - phase.first - (part.shape[axis] - 1) * steps[i] - 1
            edges[axis] = (phase.first, left, steps[i] - 1)
        # Padding and sums of the phases become one pass over the result.
        total = total + jax.lax.pad(part, zero.astype(part.dtype), edges)
    return [total]


def _phases(
    entries: int, results: int, window: int, step: int, padding: tuple[int, int]
) -> list[Phase]:
    """Phases along one axis; ``out[o]`` reads the operand at ``(o + k - padding) / step``."""
    found = []
    for first in range(min(step, results)):
        tap = (padding[0] - first) % step
        taps = len(range(tap, window, step))
        count = -(-(results - first) // step)
        low = (padding[0] - first - tap) // step
        found.append(Phase(first, tap, taps, (low, count + taps - 1 - entries - low)))
    return found
