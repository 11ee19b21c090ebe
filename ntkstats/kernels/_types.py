"""What a kernel computation is asked for and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import jax

from ntkstats.typing import Array, Inputs

OutputsMode = Literal["full", "trace", "sum", "probe"]
OUTPUT_MODES: tuple[str, ...] = ("full", "trace", "sum", "probe")


class Task(NamedTuple):
    """What to compute, as engines see it.

    Attributes
    ----------
    outputs
        One of `OUTPUT_MODES`, or ``"given"`` for per-sample cotangents passed at run time.
    head
        Name of the model output.
    n_samples, n_outputs
        N, and C = product of the output's trailing axes.
    n_rows
        Cotangents a sample: C for full and trace, 1 for sum, the number of draws for probe.
    average_outputs
        Divide entries by C.
    """

    outputs: str
    head: str
    n_samples: int
    n_outputs: int
    n_rows: int
    average_outputs: bool = False

    @property
    def pairing(self) -> str:
        """How rows of two samples meet: ``"all"`` pairs, or equal rows: ``"sum"`` or ``"each"``."""
        return {"full": "all", "trace": "sum", "probe": "each"}.get(self.outputs, "all")

    @property
    def size(self) -> int:
        """Number of rows of the kernel matrix."""
        return self.n_samples * (self.n_rows if self.pairing == "all" else 1)

    @property
    def scale(self) -> float:
        """Factor on every entry: 1 / C when outputs are averaged."""
        return 1.0 / self.n_outputs if self.average_outputs else 1.0


def n_samples(x: Inputs) -> int:
    """N, from the first leaf."""
    return jax.tree.leaves(x)[0].shape[0]


static = partial(field, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KernelMatrix:
    """An NTK Gram matrix with the meaning of its axes.

    Attributes
    ----------
    matrix
        ``(n, m)``: n = N*C (row index ``sample * C + output``) for ``outputs="full"``, else n = N.
        Never stored below float32. For ``outputs="probe"`` the mean over the draws.
    draws
        ``(D, N, M)``, one unbiased estimate of the trace kernel a draw; None for other outputs.
    layer_traces
        ``{layer: Tr K_layer}`` of a symmetric kernel; they add up to ``Tr K``. Empty for cross
        kernels.
    outputs, head
        What the entries are.
    n_samples, n_outputs
        N and C.
    average_outputs
        True when entries are divided by C.
    method
        Engine that computed it.
    covers
        Parameters that were differentiated, in words.
    padding
        Rows of zeros at the end (and columns, of a symmetric kernel), which a kernel spread over
        devices by rows has if N is no multiple of their number; 0 for all others.
    """

    matrix: Array
    draws: Array | None
    layer_traces: dict[str, Array]
    outputs: str = static(default="full")
    head: str = static(default="output")
    n_samples: int = static(default=0)
    n_outputs: int = static(default=0)
    average_outputs: bool = static(default=False)
    method: str = static(default="reference")
    covers: str = static(default="all")
    padding: int = static(default=0)

    @property
    def trace(self) -> Array:
        """``Tr K``, a scalar."""
        return self.matrix.trace()

    @property
    def diagonal(self) -> Array:
        """``(n,)`` diagonal of the matrix."""
        return self.matrix.diagonal()
