"""The other side of the full kernel: ``J^T J``, for more outputs than parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ntkstats._lanes import Index, after, loop
from ntkstats.errors import BudgetError, KernelError
from ntkstats.kernels._doors import planned
from ntkstats.kernels._engines import ReferenceEngine
from ntkstats.kernels._plan import weight_of
from ntkstats.kernels._prepared import KernelPlan
from ntkstats.kernels._tiles import Side, Stream, cuts, kernel_dtype, tiles_of
from ntkstats.kernels._types import Task, static
from ntkstats.kernels.contraction._factors import Rows
from ntkstats.models import Model, Probe
from ntkstats.typing import Array, Inputs, Params, State


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DualMatrix:
    """``J^T J``, whose nonzero eigenvalues are those of the full kernel ``J J^T``.

    Attributes
    ----------
    matrix
        ``(P, P)``, float32 or wider; parameters in the order of `jax.tree.leaves`, each flattened.
    size
        N C, the size of the kernel it stands for.
    head, n_samples, n_outputs
        What it was computed of.
    """

    matrix: Array
    size: int = static(default=0)
    head: str = static(default="output")
    n_samples: int = static(default=0)
    n_outputs: int = static(default=0)

    @property
    def trace(self) -> Array:
        """``Tr J^T J = Tr K``, a scalar."""
        return self.matrix.trace()

    def spectrum_of_kernel(self, eigenvalues: Array) -> Array:
        """Eigenvalues ``(N C,)`` of the kernel from those of this matrix, descending.

        Parameters
        ----------
        eigenvalues
            ``(P,)``, descending, from `ntkstats.spectrum.eigenvalues`.

        Raises
        ------
        KernelError
            When there are not P of them.
        """
        width = self.matrix.shape[0]
        if eigenvalues.shape != (width,):
            message = (
                f"eigenvalues has shape {eigenvalues.shape}; expected ({width},), all of this "
                "matrix. Pass ntkstats.spectrum.eigenvalues(dual.matrix)."
            )
            raise KernelError(message)
        if width >= self.size:
            return eigenvalues[: self.size]
        return jnp.pad(eigenvalues, (0, self.size - width))


def ntk_dual(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    head: str | None = None,
    budget_bytes: int | None = None,
    precision: str | None = None,
) -> DualMatrix:
    """``J^T J`` (P x P), exactly: the same nonzero spectrum as the full kernel for any N.

    Worth it where the P parameters are fewer than the N C outputs, as in policies, flows and
    other small networks on large probes: samples are streamed, so N has no limit. With sample
    weights each row of J is scaled by the square root of its sample's.

    Parameters
    ----------
    model, params, state, probe, head, precision
        As for [`empirical_ntk`][ntkstats.kernels.empirical_ntk].
    budget_bytes
        Bound on transients plus the matrix.

    Returns
    -------
    DualMatrix

    Raises
    ------
    KernelError, HeadError, ModelError, ProbeError, ParamsError, BudgetError, PrecisionError

    Examples
    --------
    >>> import jax.numpy as jnp, ntkstats as nts
    >>> model = nts.as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((2, 1)))
    >>> x = jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> dual = nts.kernels.ntk_dual(model, params, state, x)
    >>> values = nts.spectrum.eigenvalues(dual.matrix)
    >>> [round(float(v), 5) for v in dual.spectrum_of_kernel(values)]
    [9.0, 2.0, 0.0]
    """

    def compute(prepared: KernelPlan, params: Params, state: State, x: Inputs) -> DualMatrix:
        task = prepared.task
        width = sum(leaf.size for leaf in jax.tree.leaves(params))
        # The matrix, and what a tile adds to it.
        need = 2 * width**2 * kernel_dtype(params).itemsize
        if need > prepared.budget_bytes:
            message = (
                f"budget_bytes={prepared.budget_bytes:,} was given; J^T J of {width:,} parameters "
                f"needs {need:,}. Raise budget_bytes, or use empirical_ntk."
            )
            raise BudgetError(message)
        engine = ReferenceEngine(model, task.head)
        tiling = prepared.diagonal_tiling
        matrix = _dual(Stream(engine, tiling), task, Side(params, state, x, None, weight_of(probe)))
        return DualMatrix(
            matrix, task.n_samples * task.n_outputs, task.head, task.n_samples, task.n_outputs
        )

    return planned(
        compute,
        model,
        params,
        state,
        probe,
        precision=precision,
        pairs=False,
        head=head,
        method="reference",
        budget_bytes=budget_bytes,
    )


@partial(jax.jit, static_argnums=(0, 1))
def _dual(stream: Stream, task: Task, side: Side) -> Array:
    """The matrix, a tile of samples at a time."""
    tile = tiles_of(task, side, stream)
    samples, rows = cuts(task, stream.tiling)
    dtype = kernel_dtype(side.params)
    width = sum(leaf.size for leaf in jax.tree.leaves(side.params))

    def body(t: Index, carry: tuple[Array, Index]) -> tuple[Array, Index]:
        total, wait = carry
        i, a = t // rows.tiles, t % rows.tiles
        parts = [f.value for f in tile(i, a, wait) if isinstance(f, Rows)]
        jacobian = jnp.concatenate([p.reshape(*p.shape[:2], -1) for p in parts], -1).astype(dtype)
        if side.weight is not None:
            root = jnp.sqrt(side.weight[samples.entries(i)[0]]).astype(dtype)
            jacobian = root[:, None, None] * jacobian
        flat = jacobian.reshape(-1, width)
        total = total + jnp.matmul(flat.T, flat, precision=jax.lax.Precision.HIGHEST)
        return total, after(total) if stream.tiling.unroll else wait

    tiles = samples.tiles * rows.tiles
    start = (jnp.zeros((width, width), dtype), 0)
    return loop(0, tiles, body, start, unroll=stream.tiling.unroll)[0]
