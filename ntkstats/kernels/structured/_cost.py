"""What evaluating a cut pullback costs, from its graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ntkstats._compat import Equation, Variable
from ntkstats.kernels.structured._structure import Structure


class Cost(NamedTuple):
    """Floating-point operations of products and convolutions.

    Attributes
    ----------
    sample
        Once a sample (the forward pass).
    row
        Once a cotangent of a sample (the backward pass).
    """

    sample: float
    row: float


def evaluation_cost(structure: Structure, wanted: Sequence[Variable]) -> Cost:
    """Operations that make the wanted values of one sample."""
    samples, rows = structure.spreads
    sample = row = 0.0
    for eqn, times in structure.graph.pruned(list(wanted)).walk():
        work = times * operations(eqn)
        if any(v in rows for v in eqn.outputs):
            row += work
        elif any(v in samples for v in eqn.outputs):
            sample += work
    return Cost(sample, row)


def operations(eqn: Equation) -> float:
    """Operations of one product or convolution (2 for a multiply and add); 0 for the rest."""
    if eqn.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shared = math.prod(eqn.inputs[0].shape[axis] for axis in contracted)
        return 2.0 * eqn.outputs[0].size * shared
    if eqn.name == "conv_general_dilated":
        kernel, numbers = eqn.inputs[1].shape, eqn.params["dimension_numbers"]
        each = math.prod(kernel) // max(1, kernel[numbers.rhs_spec[0]])
        return 2.0 * eqn.outputs[0].size * each / eqn.params["batch_group_count"]
    return 0.0
