"""The NTK as a linear operator: products with vectors, no kernel stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ntkstats._lanes import Index, after, loop
from ntkstats.errors import BudgetError, KernelError
from ntkstats.kernels._engines import accumulator
from ntkstats.kernels._jacobian import head_outputs
from ntkstats.kernels._plan import DEFAULT_DRAWS, as_inputs, plan, weight_of
from ntkstats.kernels._prepared import KernelPlan
from ntkstats.kernels._tiles import Cut, Tiling, count, kernel_dtype
from ntkstats.kernels._tiling import Footprint, footprint, tree_bytes, with_unrolling
from ntkstats.kernels._types import Task
from ntkstats.models import Model, Probe
from ntkstats.typing import Array, ArrayLike, Inputs, Params, PyTree, State


@dataclass(frozen=True, eq=False)
class NTKOperator:
    """``K @ v`` by one VJP and one JVP of the batch for each cotangent; K is never formed.

    Made by [`ntk_operator`][ntkstats.kernels.ntk_operator].

    Attributes
    ----------
    plan
        The prepared kernel; its ``outputs`` mode gives the operator's meaning.
    params, state, x
        Where it is taken.
    weight
        ``(N,)`` sample weights, None when all are 1.
    chunk
        Samples propagated at a time.
    unroll
        Unroll the loop over chunks (see `ntkstats._lanes`).
    """

    plan: KernelPlan
    params: Params
    state: State
    x: Inputs
    weight: Array | None
    chunk: int
    unroll: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return self.plan.task.size, self.plan.task.size

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of products: float32 or wider."""
        return kernel_dtype(self.params)

    def __matmul__(self, v: ArrayLike) -> Array:
        """``K @ v`` for a vector ``(n,)`` or a matrix ``(n, k)``.

        Raises
        ------
        KernelError
            When the length of ``v`` is not n.
        """
        shape = jnp.shape(v)
        if len(shape) not in (1, 2) or shape[0] != self.shape[0]:
            message = (
                f"v has shape {shape}; expected ({self.shape[0]},) or ({self.shape[0]}, k), one "
                "entry for each row of K."
            )
            raise KernelError(message)
        columns = jnp.asarray(v, self.dtype)
        arrays = (self.params, self.state, self.x, self.plan.signs, self.weight)
        product = _matmul(
            self.plan.model,
            self.plan.task,
            self.chunk,
            self.unroll,
            *arrays,
            columns.reshape(shape[0], -1),
        )
        return product.reshape(shape)

    def to_dense(self) -> Float[Array, "n n"]:
        """The matrix, by n products; for tests and small n."""
        return self @ jnp.eye(self.shape[0], dtype=self.dtype)


def ntk_operator(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    head: str | None = None,
    outputs: str = "full",
    budget_bytes: int | None = None,
    draws: int = DEFAULT_DRAWS,
    average_outputs: bool = False,
    key: Array | None = None,
) -> NTKOperator:
    """Empirical NTK as a linear operator, for kernels too large to store.

    With parameters in half precision the products are as coarse as those: the gradient of the
    batch is rounded to the parameters' dtype.

    Parameters
    ----------
    model, params, state, probe, head, outputs, draws, average_outputs, key
        As for [`empirical_ntk`][ntkstats.kernels.empirical_ntk].
    budget_bytes
        Bound on the transients of one product.

    Returns
    -------
    NTKOperator
        Supports ``op @ v``, ``op.shape``, ``op.dtype`` and ``op.to_dense()``.

    Raises
    ------
    KernelError, HeadError, ModelError, ProbeError, ParamsError, BudgetError

    References
    ----------
    Novak et al. (2022), *Fast finite width neural tangent kernel* (NTK-vector products).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats.models import as_model
    >>> model = as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((3, 2)))
    >>> operator = ntk_operator(model, params, state, jnp.eye(3), outputs="trace")
    >>> (operator @ jnp.array([1.0, 2.0, 3.0])).tolist()
    [2.0, 4.0, 6.0]
    """
    prepared = plan(
        model,
        params,
        state,
        probe,
        head=head,
        outputs=outputs,
        budget_bytes=budget_bytes,
        draws=draws,
        average_outputs=average_outputs,
        key=key,
        pairs=False,
    )
    x = as_inputs(probe)
    chunk = _chunk(prepared, footprint(model, prepared.task, params, state, x), params)
    tiling = with_unrolling(
        Tiling(chunk, prepared.task.n_rows), prepared.task, model, (params, state, x)
    )
    return NTKOperator(prepared, params, state, x, weight_of(probe), chunk, tiling.unroll)


def _chunk(prepared: KernelPlan, need: Footprint, params: Params) -> int:
    """Samples whose activations fit the budget."""
    task = prepared.task
    # The sum of the gradients, the gradient of one chunk, and the sum as a tangent.
    fixed = 3 * max(need.row, tree_bytes(params))
    # The forward pass, what runs along with it (its tangents) or back.
    each = need.forward + max(need.forward, need.backward)
    samples = task.n_samples if prepared.model.coupled else 1
    if fixed + each > prepared.budget_bytes:
        message = (
            f"budget_bytes={prepared.budget_bytes:,} was given; one product with {samples} "
            f"sample(s) at a time needs {fixed + each:,}. Raise budget_bytes."
        )
        raise BudgetError(message)
    if not prepared.model.coupled:
        samples = min(task.n_samples, (prepared.budget_bytes - fixed) // max(each, 1))
    return count(task.n_samples, count(task.n_samples, samples))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _matmul(
    model: Model,
    task: Task,
    chunk: int,
    unroll: bool,
    params: Params,
    state: State,
    x: Inputs,
    signs: Array | None,
    weight: Array | None,
    columns: Array,
) -> Array:
    """``K @ columns`` for columns ``(n, k)``, one column after the other."""
    n_samples, n_outputs = task.n_samples, task.n_outputs
    cut = Cut(n_samples, chunk)

    def outputs(params: Params, x: Inputs) -> Array:
        return head_outputs(model, task.head, params, state, x)

    def piece(i: Index, wait: Index) -> Inputs:
        start = cut.start(i) + wait
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, chunk), x)

    def pull(cotangent: Array) -> PyTree:
        """``J^T c`` for c of shape (N, C), accumulated in float32 or wider."""

        def body(i: Index, carry: tuple[PyTree, Index]) -> tuple[PyTree, Index]:
            total, wait = carry
            x_chunk = piece(i, wait)
            out, back = jax.vjp(lambda p: outputs(p, x_chunk), params)
            index, new = cut.entries(i)
            c = cotangent[index] * new[:, None]
            total = jax.tree.map(jnp.add, total, back(c.astype(out.dtype))[0])
            return total, after(jax.tree.leaves(total)[0]) if unroll else wait

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, accumulator(p.dtype)), params)
        total, _ = loop(0, cut.tiles, body, (zeros, 0), unroll=unroll)
        return jax.tree.map(lambda t, p: t.astype(p.dtype), total, params)

    def push(tangent: PyTree) -> Array:
        """``J t``, shape (N, C)."""

        def body(i: Index, carry: tuple[Array, Index]) -> tuple[Array, Index]:
            out, wait = carry
            x_chunk = piece(i, wait)
            pushed = jax.jvp(lambda p: outputs(p, x_chunk), (params,), (tangent,))[1]
            pushed = pushed.astype(out.dtype)
            # Chunks overlap in samples whose values are equal.
            out = jax.lax.dynamic_update_slice(out, pushed, (cut.start(i), 0))
            return out, after(pushed) if unroll else wait

        out = jnp.zeros((n_samples, n_outputs), columns.dtype)
        return loop(0, cut.tiles, body, (out, 0), unroll=unroll)[0]

    def rank_one(v: Array, u: Array) -> Array:
        """``u . (J J^T (v u^T))``: the kernel of the scalar outputs ``u . f``."""
        return push(pull(v[:, None] * u[None, :])) @ u

    def one_column(v: Array) -> Array:
        if task.outputs == "full":
            return push(pull(v.reshape(n_samples, n_outputs))).ravel()
        if task.outputs == "sum":
            return rank_one(v, jnp.ones(n_outputs, v.dtype))
        if signs is not None:
            return jax.lax.map(lambda u: rank_one(v, u.astype(v.dtype)), signs).mean(0)
        # The trace kernel is the sum of one kernel for each output.
        unit = partial(jax.nn.one_hot, num_classes=n_outputs, dtype=v.dtype)
        each = jax.lax.map(lambda c: rank_one(v, unit(c)), jnp.arange(n_outputs))
        return each.sum(0)

    if weight is not None:
        root = jnp.repeat(jnp.sqrt(weight), columns.shape[0] // n_samples).astype(columns.dtype)
        columns = root[:, None] * columns
    product = jax.lax.map(one_column, columns.T).T * task.scale
    return product if weight is None else root[:, None] * product
