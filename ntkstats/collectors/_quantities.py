"""Derived quantities: what collectors share.

A quantity is a frozen value; equal values are computed once per record, whoever asks. `prepare`
runs once, on the host, when the program is bound; `compute` is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp

from ntkstats import kernels, spectrum
from ntkstats.collectors._binding import Binding
from ntkstats.collectors._losses import per_sample
from ntkstats.collectors._turns import Turns
from ntkstats.kernels import KernelMatrix, KernelPlan
from ntkstats.typing import Array, LossFn, Outputs, Params, PyTree, State

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Reading:
    """One moment at which quantities are computed: parameters, inputs, and a memory.

    Attributes
    ----------
    params, state
        The snapshot's.
    x, y, weight
        The probe's arrays.
    get
        ``get(quantity)``: its value at this moment, computed at most once.
    planned
        All quantities of this record: lets one quantity read off another that is computed anyway.
    turns
        What solves for eigenvalues does it through ``turns.take(solve, matrix)``.
    """

    params: Params
    state: State
    x: PyTree
    y: Array | None
    weight: Array | None
    get: Callable[[Quantity], Any]
    planned: frozenset[Quantity]
    turns: Turns = field(default_factory=Turns)


class Quantity(Protocol):
    """A derived quantity; implementations are frozen dataclasses."""

    def requires(self) -> tuple[Quantity, ...]:
        """Quantities that `compute` asks for."""
        ...

    def prepare(self, binding: Binding) -> Any:
        """Eager checks and planning; the result is handed to `compute`."""
        ...

    def compute(self, prepared: Any, binding: Binding, reading: Reading) -> Any:
        """The value; pure."""
        ...


@dataclass(frozen=True)
class ModelOutputs:
    """``{head: (N, *out)}``: the model applied to the probe."""

    def requires(self) -> tuple[Quantity, ...]:
        return ()

    def prepare(self, binding: Binding) -> None:  # noqa: ARG002
        return None

    def compute(self, prepared: None, binding: Binding, reading: Reading) -> Outputs:  # noqa: ARG002
        return binding.model.apply(reading.params, reading.state, reading.x)


MANY_OUTPUTS = 50
"""Outputs a sample beyond which ``outputs="auto"`` estimates the trace kernel."""


def resolved(outputs: str, binding: Binding, head: str) -> str:
    """The kind of kernel that ``"auto"`` stands for: a VJP for each output as long as they are few.

    Beyond `MANY_OUTPUTS` it is the probe kernel, an unbiased estimate with an error bar that costs
    one VJP a sample and draw whatever the number of outputs.
    """
    if outputs != "auto":
        return outputs
    n_outputs = math.prod(binding.heads[head].shape[1:])
    return "probe" if n_outputs > MANY_OUTPUTS else "trace"


@dataclass(frozen=True)
class Kernel:
    """The NTK Gram matrix of one head, a `KernelMatrix`; its ``outputs`` say of which kind."""

    head: str
    outputs: str = "auto"
    draws: int = 8
    average_outputs: bool = False

    def requires(self) -> tuple[Quantity, ...]:
        return ()

    def prepare(self, binding: Binding) -> KernelPlan:
        return kernels.plan(
            binding.model,
            binding.params,
            binding.state,
            binding.probe,
            head=self.head,
            outputs=resolved(self.outputs, binding, self.head),
            draws=self.draws,
            average_outputs=self.average_outputs,
            key=binding.key,
            budget_bytes=binding.budget_bytes,
            lanes=binding.lanes,
            checked=True,
        )

    def compute(self, prepared: KernelPlan, binding: Binding, reading: Reading) -> KernelMatrix:  # noqa: ARG002
        named = replace(self, outputs=prepared.task.outputs)
        if named != self and named in reading.planned:
            return reading.get(named)
        return prepared.gram(reading.params, reading.state, reading.x, weight=reading.weight)


@dataclass(frozen=True)
class Eigenvalues:
    """``(n,)`` eigenvalues of a kernel, descending."""

    kernel: Kernel

    def requires(self) -> tuple[Quantity, ...]:
        return (self.kernel,)

    def prepare(self, binding: Binding) -> None:  # noqa: ARG002
        return None

    def compute(self, prepared: None, binding: Binding, reading: Reading) -> Array:  # noqa: ARG002
        return reading.turns.take(spectrum.eigenvalues, reading.get(self.kernel).matrix)


@dataclass(frozen=True)
class Diagonal:
    """``(N,)`` diagonal of the trace kernel of one head, without pairs.

    Read off a trace or full kernel when that is computed for the same record anyway.
    """

    head: str

    def requires(self) -> tuple[Quantity, ...]:
        return ()

    def prepare(self, binding: Binding) -> KernelPlan:
        return Kernel(self.head, "trace").prepare(binding)

    def compute(self, prepared: KernelPlan, binding: Binding, reading: Reading) -> Array:
        for outputs in ("trace", "full", "auto"):
            kernel = Kernel(self.head, outputs)
            known = kernel in reading.planned
            if known and resolved(outputs, binding, self.head) != "probe":
                return reading.get(kernel).diagonal.reshape(prepared.task.n_samples, -1).sum(1)
        norms = prepared.diagonal(reading.params, reading.state, reading.x).sum((0, 2))
        return norms if reading.weight is None else norms * reading.weight.astype(norms.dtype)


@dataclass(frozen=True)
class SampleLosses:
    """``(N,)`` loss of each sample."""

    loss: LossFn | str
    head: str

    def requires(self) -> tuple[Quantity, ...]:
        return (ModelOutputs(),)

    def prepare(self, binding: Binding) -> LossFn:
        return per_sample(self.loss, binding, self.head)

    def compute(self, prepared: LossFn, binding: Binding, reading: Reading) -> Array:  # noqa: ARG002
        return prepared(reading.get(ModelOutputs())[self.head], reading.y)


@dataclass(frozen=True)
class OutputGradients:
    """``(N, C)`` gradient of each sample's loss with respect to its own outputs."""

    loss: LossFn | str
    head: str

    def requires(self) -> tuple[Quantity, ...]:
        return (ModelOutputs(),)

    def prepare(self, binding: Binding) -> LossFn:
        return per_sample(self.loss, binding, self.head)

    def compute(self, prepared: LossFn, binding: Binding, reading: Reading) -> Array:  # noqa: ARG002
        outputs = reading.get(ModelOutputs())[self.head]
        # Each loss depends on its own row only, so the gradient of the sum holds every row.
        gradient = jax.grad(lambda out: prepared(out, reading.y).sum())(outputs)
        return gradient.reshape(gradient.shape[0], -1)


@dataclass(frozen=True)
class MeanGradient:
    """Gradient of the (unweighted) mean loss over the probe in the parameters."""

    loss: LossFn | str
    head: str

    def requires(self) -> tuple[Quantity, ...]:
        return (OutputGradients(self.loss, self.head),)

    def prepare(self, binding: Binding) -> None:  # noqa: ARG002
        return None

    def compute(self, prepared: None, binding: Binding, reading: Reading) -> PyTree:  # noqa: ARG002
        g = reading.get(OutputGradients(self.loss, self.head))
        n = g.shape[0]
        w = (
            jnp.full(n, 1.0 / n)
            if reading.weight is None
            else reading.weight / reading.weight.sum()
        )

        def outputs(params: Params) -> Array:
            return binding.model.apply(params, reading.state, reading.x)[self.head]

        out, pull = jax.vjp(outputs, reading.params)
        return pull((g * w[:, None]).reshape(out.shape).astype(out.dtype))[0]


@dataclass(frozen=True)
class SampleGradientNorms:
    """``(N,)`` squared norm of each sample's loss gradient, without pairs."""

    loss: LossFn | str
    head: str

    def requires(self) -> tuple[Quantity, ...]:
        return (OutputGradients(self.loss, self.head),)

    def prepare(self, binding: Binding) -> KernelPlan:
        return LossKernel(self.loss, self.head).prepare(binding)

    def compute(self, prepared: KernelPlan, binding: Binding, reading: Reading) -> Array:  # noqa: ARG002
        kernel = LossKernel(self.loss, self.head)
        if kernel in reading.planned:
            return reading.get(kernel).diagonal
        g = reading.get(OutputGradients(self.loss, self.head))
        norms = prepared.diagonal(
            reading.params, reading.state, reading.x, cotangents=g[:, None, :]
        )
        return norms.sum((0, 2))


@dataclass(frozen=True)
class LossKernel:
    """``<grad l_i, grad l_j>``, the NTK of the per-sample loss (unweighted)."""

    loss: LossFn | str
    head: str

    def requires(self) -> tuple[Quantity, ...]:
        return (OutputGradients(self.loss, self.head),)

    def prepare(self, binding: Binding) -> KernelPlan:
        return kernels.plan(
            binding.model,
            binding.params,
            binding.state,
            binding.probe,
            head=self.head,
            outputs="given",
            budget_bytes=binding.budget_bytes,
            lanes=binding.lanes,
            checked=True,
        )

    def compute(self, prepared: KernelPlan, binding: Binding, reading: Reading) -> KernelMatrix:  # noqa: ARG002
        g = reading.get(OutputGradients(self.loss, self.head))
        return prepared.gram(reading.params, reading.state, reading.x, cotangents=g[:, None, :])


@dataclass(frozen=True)
class GradientOverlaps:
    """``(N,)`` inner product of each sample's loss gradient with the mean gradient."""

    loss: LossFn | str
    head: str

    def requires(self) -> tuple[Quantity, ...]:
        return (OutputGradients(self.loss, self.head), MeanGradient(self.loss, self.head))

    def prepare(self, binding: Binding) -> None:  # noqa: ARG002
        return None

    def compute(self, prepared: None, binding: Binding, reading: Reading) -> Array:  # noqa: ARG002
        g = reading.get(OutputGradients(self.loss, self.head))
        mean = reading.get(MeanGradient(self.loss, self.head))

        def outputs(params: Params) -> Array:
            return binding.model.apply(params, reading.state, reading.x)[self.head]

        # One JVP along the mean gradient gives J_i . mean for every sample at once.
        pushed = jax.jvp(outputs, (reading.params,), (mean,))[1]
        return jnp.sum(g * pushed.reshape(g.shape), axis=1)


def closure(quantities: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
    """The quantities and everything they require, each once, requirements first."""
    found: dict[Quantity, None] = {}

    def visit(quantity: Quantity) -> None:
        if quantity not in found:
            for other in quantity.requires():
                visit(other)
            found[quantity] = None

    for quantity in quantities:
        visit(quantity)
    return tuple(found)
