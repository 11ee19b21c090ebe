"""What each door refuses: the class of the error and part of its message."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from ntkstats import errors, kernels
from ntkstats.models import as_model

from .networks import X, mlp_params, system

ARGUMENTS = ("model", "params", "state", "probe")
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def without_type_checker():
    """What users meet: the suite's own type checker would be first otherwise."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def call(door, **changes):
    """The door with good arguments, some of them replaced."""
    s = system("mlp")
    arguments = {**dict(zip(ARGUMENTS, s.arguments, strict=True)), **changes}
    first = [arguments.pop(name) for name in ARGUMENTS]
    return door(*first, **arguments)


ANY_DOOR = [
    ({"model": lambda p, x: x}, errors.ModelError, "as_model"),
    ({"params": mlp_params()[:1]}, errors.ParamsError, "another structure"),
    ({"params": []}, errors.ParamsError, "at least one"),
    ({"params": jax.tree.map(lambda p: p.astype(int), mlp_params())}, errors.ParamsError, "int32"),
    ({"probe": X[:, :3]}, errors.ProbeError, "(6, 3)"),
    ({"probe": X[:0]}, errors.ProbeError, "0 samples"),
    ({"probe": {"a": X, "b": X[:2]}}, errors.ProbeError, "differ"),
    ({"probe": np.where(X > 1, np.nan, X)}, errors.ProbeError, "finite"),
    ({"probe": [1.0, 2.0]}, errors.ProbeError, "np.asarray"),
    ({"head": "critic"}, errors.HeadError, "'output'"),
    ({"budget_bytes": 100}, errors.BudgetError, "Raise budget_bytes"),
    ({"budget_bytes": 0}, errors.KernelError, "at least 1"),
    ({"budget_bytes": 2.5}, errors.KernelError, "whole number"),
    ({"budget_bytes": float("nan")}, errors.KernelError, "whole number"),
    ({"budget_bytes": True}, errors.KernelError, "whole number"),
    ({"draws": 0}, errors.KernelError, "draws=0"),
]
KERNEL_DOOR = [
    ({"outputs": "class"}, errors.KernelError, "expected one of ('full', 'trace'"),
    ({"outputs": "probe"}, errors.KernelError, "jax.random.key"),
    ({"average_outputs": True}, errors.KernelError, "expected 'trace'"),
]
METHOD_DOOR = [({"method": "magic"}, errors.KernelError, "'reference'")]
PRECISION_DOOR = [({"precision": "float16"}, errors.PrecisionError, "'float64'")]
GRAM = [
    ({"cross": X[:, :3]}, errors.ProbeError, "(6, 3)"),
    ({"cross": X[:0]}, errors.ProbeError, "0 samples"),
    ({"cross_params": mlp_params((4, 5, 3))}, errors.ParamsError, "differ in shape"),
    ({"cross_params": mlp_params((4, 6, 6, 3))}, errors.ParamsError, "another structure"),
    ({"cross_state": system("mlp").state}, errors.KernelError, "cross_params=params"),
]
TRACE = [
    ({"estimator": "hutch"}, errors.KernelError, "'rademacher'"),
    ({"estimator": "rademacher", "draws": 1}, errors.KernelError, "at least 2"),
]
PLAN = [
    ({"lanes": 0}, errors.KernelError, "lanes=0"),
    ({"n_rows": -1}, errors.KernelError, "n_rows=-1"),
    ({"outputs": "given", "average_outputs": True}, errors.KernelError, "expected 'trace'"),
]
DOORS = {
    kernels.empirical_ntk: [*ANY_DOOR, *KERNEL_DOOR, *METHOD_DOOR, *PRECISION_DOOR, *GRAM],
    kernels.ntk_diagonal: [*ANY_DOOR, *KERNEL_DOOR, *METHOD_DOOR, *PRECISION_DOOR],
    kernels.ntk_operator: [*ANY_DOOR, *KERNEL_DOOR],
    kernels.ntk_trace: [*ANY_DOOR, *PRECISION_DOOR, *TRACE],
    kernels.plan: [*ANY_DOOR, *KERNEL_DOOR, *METHOD_DOOR, *PLAN],
}
ROWS = [(door, *row) for door, rows in DOORS.items() for row in rows]


def label(value):
    return getattr(value, "__name__", None) or (
        "-".join(value) if isinstance(value, dict) else None
    )


@pytest.mark.parametrize(("door", "changes", "error", "message"), ROWS, ids=label)
def test_bad_input_is_refused_with_a_clear_error(door, changes, error, message):
    with pytest.raises(error) as caught:
        call(door, **changes)
    assert message in str(caught.value)
    assert isinstance(caught.value, errors.NtkStatsError)


@pytest.mark.parametrize("door", DOORS)
def test_several_heads_need_a_choice(door):
    s = system("actor")
    with pytest.raises(errors.HeadError, match=r"actor.*critic"):
        door(*s.arguments)


@pytest.mark.parametrize("door", DOORS)
def test_complex_outputs_are_refused(door):
    model = as_model(lambda p, x: (x @ p) * 1j)
    with pytest.raises(errors.ComplexOutputError, match="real"):
        door(model, *model.split(jnp.ones((4, 2))), X)


def test_good_arguments_pass_every_door():
    for door in DOORS:
        call(door)


def test_outputs_without_a_derivative_are_named():
    model = as_model(lambda p, x: jnp.round(x @ p).astype(jnp.int32).astype(jnp.float32))
    params, state = model.split(jnp.ones((4, 2)))
    with pytest.raises(errors.KernelError, match="No parameter reaches the outputs"):
        kernels.empirical_ntk(model, params, state, X)
