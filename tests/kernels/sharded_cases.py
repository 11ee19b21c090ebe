"""Kernels that are computed on several devices, in a process that has four of them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np

from ntkstats import kernels
from ntkstats.kernels._decide import Share
from ntkstats.models import Probe, layer_names

from . import networks, zoo
from .oracle import kernel, leaf_jacobians
from .zoo.building import draw

KEY = jax.random.key(3)
SHAPES = {"mlp": (6,), "cnn_pooling": (9, 9, 2)}


class Case(NamedTuple):
    """A kernel on some devices.

    Attributes
    ----------
    system
        Name of a network of the zoo, or ``"nodes"``: a network whose samples interact.
    devices, shard, outputs, method, precision, average_outputs
        What is asked for.
    n
        Number of samples; None takes the inputs of the zoo.
    weighted
        Whether samples have weights.
    cross
        ``"inputs"`` or ``"moment"`` for the kernel with 7 other samples, or at other parameters.
    cut
        ``"tiles"`` or ``"groups"``: the budget is so small that this is needed.
    """

    system: str
    devices: int
    shard: str = "rows"
    outputs: str = "full"
    method: str = "auto"
    precision: str | None = None
    average_outputs: bool = False
    n: int | None = None
    weighted: bool = False
    cross: str | None = None
    cut: str | None = None


FAST = {
    # No multiple of the devices, one device with nothing but filling.
    "mlp": Case("mlp", 4),
    "mlp_odd": Case("mlp", 3, outputs="trace", precision="float64", weighted=True),
    "mlp_sum": Case("mlp", 3, outputs="sum", average_outputs=True),
    "mlp_multiple": Case("mlp", 4, outputs="trace", n=8),
    # A scan that starts from constants, differentiated on the devices.
    "scan": Case("lstm", 2, outputs="sum", method="reference"),
    "reference": Case("mlp", 4, method="reference", weighted=True),
    "tiles": Case("mlp", 4, n=11, cut="tiles"),
    "tiles_odd": Case("mlp", 3, outputs="trace", n=11, cut="tiles", weighted=True),
    "groups": Case("mlp", 4, outputs="trace", n=44, cut="groups"),
    "cross": Case("mlp", 4, cross="inputs", weighted=True),
    "cross_tiles": Case("mlp", 3, outputs="probe", n=11, cross="inputs", cut="tiles"),
    "cross_moment": Case("mlp", 2, outputs="trace", cross="moment", precision="float64"),
    "parameters": Case("mlp", 4, "parameters", weighted=True),
    "parameters_odd": Case("mlp", 3, "parameters", "trace", precision="float64"),
    "parameters_reference": Case("mlp", 3, "parameters", "sum", "reference"),
    "parameters_tiles": Case("mlp", 4, "parameters", "full", n=11, cut="tiles"),
    "parameters_cross": Case("mlp", 2, "parameters", "trace", cross="inputs"),
    "parameters_nodes": Case("nodes", 2, "parameters", "trace"),
}
SLOW = {
    "probe": Case("mlp", 4, outputs="probe", weighted=True),
    "lookups": Case("words", 4, outputs="trace"),
    "tiles_two": Case("mlp", 2, outputs="probe", n=11, cut="tiles", method="reference"),
    "convolution": Case("cnn_pooling", 4),
    "convolution_odd": Case("cnn_pooling", 3, outputs="trace", precision="float64"),
    "transformer": Case("nnx_transformer", 4, outputs="trace"),
    "transformer_odd": Case("nnx_transformer", 3, precision="float64"),
    "tiles_unrolled": Case("cnn_pooling", 2, outputs="trace", n=8, cut="tiles"),
    "tiles_five": Case("mlp", 5, outputs="trace", n=23, cut="tiles", weighted=True),
    "tiles_six": Case("mlp", 6, n=23, cut="tiles", weighted=True),
    "cross_six": Case("mlp", 6, outputs="sum", n=23, cross="inputs", cut="tiles"),
    "parameters_convolution": Case("cnn_pooling", 3, "parameters", "trace", precision="float64"),
    "parameters_transformer": Case("nnx_transformer", 4, "parameters", "probe"),
    # Arrays of so different sizes that some devices have none.
    "parameters_six": Case("mlp", 6, "parameters", "trace", method="reference"),
}
CASES = FAST | SLOW
OTHERS = 7


@functools.cache
def system(case: Case) -> networks.System:
    """The network and its inputs."""
    if case.system == "nodes":
        return networks.system("graph")
    s = zoo.system(case.system)
    return s if case.n is None else s.on(draw(case.n, *SHAPES[case.system], seed=9))


@functools.cache
def other(case: Case) -> networks.System:
    """The other side of a cross kernel."""
    s = system(case)
    if case.cross == "inputs":
        return s.on(draw(OTHERS, *SHAPES[case.system], seed=10))
    rng = np.random.default_rng(5)
    moved = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(p.dtype), s.params)
    return s._replace(params=moved)


def weights(s: networks.System, case: Case) -> np.ndarray | None:
    """One of them zero, if there are any."""
    n = len(jax.tree.leaves(s.x)[0])
    return np.arange(n) / 3 if case.weighted else None


def probe(s: networks.System, case: Case) -> Probe:
    """The inputs with their weights."""
    return Probe(s.x, weight=weights(s, case))


def options(case: Case) -> dict[str, object]:
    """What every door takes."""
    return {
        "outputs": case.outputs,
        "method": case.method,
        "average_outputs": case.average_outputs,
        "key": KEY,
    }


def budget(case: Case) -> int | None:
    """The largest power of two with which the kernel has to be cut."""
    if case.cut is None:
        return None
    s = system(case)
    n = len(jax.tree.leaves(s.x)[0])
    share = Share(case.shard, case.devices, -(-n // case.devices) if case.shard == "rows" else n)
    cross = None if case.cross is None else other(case).x
    for exponent in range(24, 8, -1):
        plan = kernels.plan(
            *s.arguments,
            share=share,
            cross=cross,
            checked=True,
            budget_bytes=2**exponent,
            **options(case),
        )
        whole = plan.tiling.samples == share.samples and plan.tiling.rows == plan.task.n_rows
        if not whole if case.cut == "tiles" else len(plan.streams) > 1:
            return 2**exponent
    raise AssertionError("no budget is too small")


# --- what has to come out ---------------------------------------------------------------------


@functools.cache
def _leaves(name: str, n: int | None, cross: str | None) -> list[np.ndarray]:
    case = Case(name, 1, n=n, cross=cross)
    s = system(case) if cross is None else other(case)
    return leaf_jacobians(*s.arguments, s.head)


def _weighted(J: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return J if weight is None else np.sqrt(weight)[:, None, None] * J


def _kernel(case: Case, J: np.ndarray, J2: np.ndarray) -> np.ndarray:
    s = system(case)
    signs = None
    if case.outputs == "probe":
        signs = kernels.plan(*s.arguments, outputs="probe", key=KEY, checked=True).signs
    return kernel(J, case.outputs, signs, J2) / (J.shape[1] if case.average_outputs else 1)


def expected(case: Case) -> np.ndarray:
    """The kernel, from dense Jacobians in float64."""
    J = np.concatenate(_leaves(case.system, case.n, None), -1)
    J = J2 = _weighted(J, weights(system(case), case))
    if case.cross is not None:
        J2 = np.concatenate(_leaves(case.system, case.n, case.cross), -1)
        J2 = _weighted(J2, weights(other(case), case))
    return _kernel(case, J, J2)


def expected_traces(case: Case) -> dict[str, float]:
    """The traces of the layers; none of a cross kernel."""
    if case.cross is not None:
        return {}
    s = system(case)
    traces: dict[str, float] = {}
    leaves = _leaves(case.system, case.n, None)
    for (layer, _), leaf in zip(layer_names(s.params), leaves, strict=True):
        J = _weighted(leaf, weights(s, case))
        traces[layer] = traces.get(layer, 0.0) + np.trace(_kernel(case, J, J))
    return traces
