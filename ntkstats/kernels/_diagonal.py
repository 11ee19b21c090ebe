"""Diagonal and trace of the NTK without forming pairs."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ntkstats.errors import KernelError
from ntkstats.kernels._doors import planned
from ntkstats.kernels._plan import DEFAULT_DRAWS, weight_of
from ntkstats.kernels._prepared import KernelPlan
from ntkstats.models import Model, Probe
from ntkstats.typing import Array, Estimate, Inputs, Params, State


def ntk_diagonal(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    head: str | None = None,
    outputs: str = "full",
    method: str = "auto",
    budget_bytes: int | None = None,
    draws: int = DEFAULT_DRAWS,
    average_outputs: bool = False,
    key: Array | None = None,
    precision: str | None = None,
) -> Float[Array, " n"]:
    """Diagonal of the empirical NTK, exactly and without pairs.

    Parameters
    ----------
    model, params, state, probe, head, outputs, method
        As for [`empirical_ntk`][ntkstats.kernels.empirical_ntk].
    budget_bytes
        Bound on transients and the diagonal; the matrix need not fit.
    draws, average_outputs, key, precision
        As for [`empirical_ntk`][ntkstats.kernels.empirical_ntk].

    Returns
    -------
    Array
        ``(N C,)`` for ``outputs="full"``, else ``(N,)``.

    Raises
    ------
    KernelError, HeadError, ModelError, ProbeError, ParamsError, BudgetError, PrecisionError

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats.models import as_model
    >>> model = as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((3, 2)))
    >>> ntk_diagonal(model, params, state, 2.0 * jnp.eye(3), outputs="trace").tolist()
    [8.0, 8.0, 8.0]
    """

    def compute(prepared: KernelPlan, params: Params, state: State, x: Inputs) -> Array:
        norms = prepared.diagonal(params, state, x, weight=weight_of(probe))
        return _reduced(prepared.task.pairing, norms)

    return planned(
        compute,
        model,
        params,
        state,
        probe,
        precision=precision,
        pairs=False,
        head=head,
        outputs=outputs,
        method=method,
        budget_bytes=budget_bytes,
        draws=draws,
        average_outputs=average_outputs,
        key=key,
    )


@partial(jax.jit, static_argnums=0)
def _reduced(pairing: str, norms: Array) -> Array:
    """The diagonal from norms ``(leaf, N, R)``."""
    rows = norms.sum(0)
    if pairing == "all":
        return rows.ravel()
    return rows.sum(1) if pairing == "sum" else rows.mean(1)


def ntk_trace(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    head: str | None = None,
    estimator: str = "exact",
    budget_bytes: int | None = None,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
    precision: str | None = None,
) -> Estimate:
    r"""Trace of the full (equally: trace) kernel, exact or by random signs.

    The estimator ``"rademacher"`` averages ``sum_n |v . J[n]|^2`` over draws of one sign vector
    ``v`` in {-1, 1}^C shared by all samples; it costs one VJP a sample and draw instead of C.

    Parameters
    ----------
    model, params, state, probe, head, budget_bytes, precision
        As for [`ntk_diagonal`][ntkstats.kernels.ntk_diagonal].
    estimator
        ``"exact"`` or ``"rademacher"``.
    draws
        Number of sign vectors, at least 2 so that a standard error exists.
    seed
        Seed of the sign vectors.

    Returns
    -------
    Estimate
        Value, standard error (0 when exact), method, cost in VJPs, seed.

    Raises
    ------
    KernelError, HeadError, ModelError, ProbeError, ParamsError, BudgetError, PrecisionError

    References
    ----------
    Hutchinson (1990), *A stochastic estimator of the trace of the influence matrix*.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats.models import as_model
    >>> model = as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((3, 2)))
    >>> trace = ntk_trace(model, params, state, jnp.eye(3))
    >>> float(trace.value), float(trace.stderr), trace.method, trace.cost
    (6.0, 0.0, 'exact', 6)
    """
    if estimator not in ("exact", "rademacher"):
        message = f"estimator={estimator!r} was given; expected 'exact' or 'rademacher'."
        raise KernelError(message)
    exact = estimator == "exact"

    def compute(prepared: KernelPlan, params: Params, state: State, x: Inputs) -> Estimate:
        task = prepared.task
        if not exact and task.n_rows < 2:
            message = (
                f"draws={draws} was given; expected at least 2 sign vectors, since one has no "
                "standard error."
            )
            raise KernelError(message)
        rows = prepared.diagonal(params, state, x, weight=weight_of(probe)).sum((0, 1))
        cost = task.n_samples * task.n_rows
        if exact:
            return Estimate(rows.sum(), jnp.zeros((), rows.dtype), estimator, cost, None)
        stderr = rows.std(ddof=1) / math.sqrt(task.n_rows)
        return Estimate(rows.mean(), stderr, estimator, cost, seed)

    return planned(
        compute,
        model,
        params,
        state,
        probe,
        precision=precision,
        pairs=False,
        head=head,
        outputs="full" if exact else "probe",
        budget_bytes=budget_bytes,
        draws=draws,
        key=None if exact else jax.random.key(seed),
    )
