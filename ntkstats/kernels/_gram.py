"""The public door to NTK Gram matrices."""

from __future__ import annotations

from typing import Any

from jax.sharding import Mesh

from ntkstats.errors import KernelError
from ntkstats.kernels._doors import planned, prepare
from ntkstats.kernels._plan import DEFAULT_DRAWS, as_inputs, weight_of
from ntkstats.kernels._precision import at_precision
from ntkstats.kernels._prepared import KernelPlan
from ntkstats.kernels._types import KernelMatrix
from ntkstats.kernels.sharded._sharded import sharded_ntk
from ntkstats.models import Model, Probe
from ntkstats.typing import Array, Inputs, Params, State


def empirical_ntk(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    head: str | None = None,
    outputs: str = "full",
    cross: Probe | Inputs | None = None,
    cross_params: Params | None = None,
    cross_state: State | None = None,
    method: str = "auto",
    budget_bytes: int | None = None,
    draws: int = DEFAULT_DRAWS,
    average_outputs: bool = False,
    key: Array | None = None,
    precision: str | None = None,
    mesh: Mesh | None = None,
    mesh_axis: str | None = None,
    shard: str = "rows",
) -> KernelMatrix:
    r"""Empirical neural tangent kernel, exactly.

    With ``J[(n, c)] = d f_c(x_n) / d theta`` the kernels are

    ==========  =====  ============================================================================
    outputs     size   entry
    ==========  =====  ============================================================================
    ``full``    N C    ``<J[(n,c)], J[(m,e)]>``, row index ``n * C + c``
    ``trace``   N      ``sum_c <J[(n,c)], J[(m,c)]>``
    ``sum``     N      ``<sum_c J[(n,c)], sum_e J[(m,e)]>`` (sum of logits; cross-class terms in)
    ``probe``   N      mean over draws of ``<v.J[n], v.J[m]>``, ``v`` random signs shared by all
                       samples: an unbiased estimate of ``trace`` at one VJP a sample and draw
    ==========  =====  ============================================================================

    The three N x N kernels have **different entropies**; they are never swapped silently.

    Parameters
    ----------
    model
        From [`as_model`][ntkstats.as_model].
    params, state
        ``model.split(obj)``.
    probe
        Inputs, leaves ``(N, ...)``; weights of a probe scale entry (i, j) by ``sqrt(w_i w_j)``
        (in a cross kernel each side by its own).
    head
        Which output; may be left out when there is one.
    outputs
        See above.
    cross
        Second inputs ``(M, ...)`` for the kernel ``K(probe, cross)``.
    cross_params, cross_state
        Second parameters (and state; default the first) for ``K(theta_t, theta_s)``.
    method
        ``"auto"`` takes the structured engine where it can be used (a warning says where not),
        ``"structured"`` insists on it, ``"reference"`` writes every Jacobian row out.
    budget_bytes
        Bound on transients plus K; tiles are cut to fit.
    draws
        Number of sign vectors of the probe kernel.
    average_outputs
        Divide the N x N kernels by C (neural-tangents does; entropies do not change).
    key
        PRNG key of the sign vectors, required for ``outputs="probe"``.
    precision
        None or ``"float32"`` computes in the parameters' precision, accumulating in float32 or
        wider; ``"float64"`` traces everything in float64 (from the host only).
    mesh, mesh_axis
        Compute on all devices along an axis of a `jax.sharding.Mesh`, which has to be named if
        there are several. From the host only; with several processes each makes the same call.
        ``budget_bytes`` is then that of one device.
    shard
        ``"rows"`` spreads the samples; the matrix stays spread over the devices by rows, with
        rows and columns of zeros at its end if N is no multiple of their number (`padding`).
        ``"parameters"`` shares the parameters out; every device gets the whole matrix.

    Returns
    -------
    KernelMatrix
        The matrix with its meaning, and the share of each layer in the trace.

    Raises
    ------
    KernelError, HeadError, ModelError, ProbeError, ParamsError, BudgetError, PrecisionError

    References
    ----------
    Jacot et al. (2018), *Neural tangent kernel*; Novak et al. (2022), *Fast finite width neural
    tangent kernel*; Mohamadi et al. (2023) for the sum-of-logits kernel.

    Examples
    --------
    >>> import jax.numpy as jnp, ntkstats as nts
    >>> model = nts.as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((3, 2)))
    >>> K = nts.empirical_ntk(model, params, state, jnp.eye(3), outputs="trace")
    >>> K.matrix.tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    if cross_state is not None and cross_params is None:
        message = (
            "cross_state was given without cross_params; expected both or neither. Pass "
            "cross_params=params if only the state differs."
        )
        raise KernelError(message)
    options = {
        "head": head,
        "outputs": outputs,
        "method": method,
        "budget_bytes": budget_bytes,
        "draws": draws,
        "average_outputs": average_outputs,
        "key": key,
    }
    weight = weight_of(probe)
    if mesh is not None or mesh_axis is not None:
        places: list[tuple[Params, State, Any]] = [(params, state, probe)]
        if cross is not None or cross_params is not None:
            other_params = params if cross_params is None else cross_params
            other_state = state if cross_state is None else cross_state
            places.append((other_params, other_state, probe if cross is None else cross))
        return sharded_ntk(
            model, places, options, mesh=mesh, mesh_axis=mesh_axis, shard=shard, precision=precision
        )
    if cross is None and cross_params is None:

        def gram(prepared: KernelPlan, params: Params, state: State, x: Inputs) -> KernelMatrix:
            return prepared.gram(params, state, x, weight=weight)

        return planned(gram, model, params, state, probe, precision=precision, **options)
    other = probe if cross is None else cross
    params2 = params if cross_params is None else cross_params
    state2 = state if cross_state is None else cross_state

    def between(
        params: Params, state: State, x: Inputs, params2: Params, state2: State, x2: Inputs
    ) -> KernelMatrix:
        left, right = (params, state, x), (params2, state2, x2)
        first = prepare(model, *left, probe, precision=precision, cross=x2, **options)
        second = prepare(model, *right, other, precision=precision, cross=x, **options)
        return first.cross(second, left, right, weights=(weight, weight_of(other)))

    arguments = (params, state, as_inputs(probe), params2, state2, as_inputs(other))
    return at_precision(precision, between, *arguments)
