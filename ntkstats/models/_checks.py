"""Checks of a model on its probe, run once before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import is_tracer
from ntkstats.errors import (
    ComplexOutputError,
    CoupledSamplesError,
    ModelError,
    NtkStatsError,
    ParamsError,
    ProbeError,
)
from ntkstats.models._coupling import find_interaction
from ntkstats.models._filter import leaf_paths
from ntkstats.models._heads import head_of
from ntkstats.models._model import Model
from ntkstats.models._probe import Probe, describe_shapes
from ntkstats.models._purity import check_pure
from ntkstats.models._static import is_array
from ntkstats.typing import Inputs, Params, PyTree, State


def check_model(
    model: Model, params: Params, state: State, probe: Probe, *, head: str | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Check that a model can be measured on a probe.

    Shapes are checked by abstract evaluation on the probe and on a batch of one sample. Then up
    to 32 samples are evaluated while others are changed, at the given parameters and at
    parameters slightly away from them: an output that moves shows that samples interact. With
    traced parameters this numerical test is left out.

    Parameters
    ----------
    model
        From `as_model`.
    params, state
        What ``model.split(obj)`` gave.
    probe
        The N inputs of the measurement.
    head
        Check this head only; None checks all.

    Returns
    -------
    dict
        ``{head: jax.ShapeDtypeStruct (N, *out)}`` of the checked heads.

    Raises
    ------
    ParamsError
        If a parameter is not a real floating-point array, or the structure is not that of the
        split.
    ProbeError
        If the model fails on inputs of the probe's shape.
    HeadError
        If the model has no head of that name.
    ComplexOutputError
        If an output is complex.
    CoupledSamplesError
        If samples interact and the model does not declare it.
    ModelError
        If an output is not floating-point, has no entries, or lacks the leading sample axis.

    Examples
    --------
    >>> from ntkstats.models import as_model
    >>> model = as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((3, 2)))
    >>> check_model(model, params, state, Probe(jnp.ones((5, 3))))
    {'output': ShapeDtypeStruct(shape=(5, 2), dtype=float32)}
    """
    _check_params(params)
    outputs = _shapes_on_probe(model, params, state, probe)
    names = list(outputs) if head is None else [head_of(outputs, head)]
    for name in names:
        _check_output(name, outputs[name], probe.n)
    check_pure(model, params, state, probe.x)
    if not model.coupled:
        _check_one_sample(model, params, state, probe, names, outputs)
        if not _traced((params, state)):
            _check_interaction(model, params, state, probe, names)
    return {name: outputs[name] for name in names}


def _check_params(params: Params) -> None:
    leaves = jax.tree.leaves(params)
    if not leaves:
        msg = "the parameters have no leaves; expected at least one real floating-point array."
        raise ParamsError(msg)
    for path, leaf in zip(leaf_paths(params), leaves, strict=True):
        if not is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            given = leaf.dtype if is_array(leaf) else type(leaf).__name__
            msg = (
                f"the parameter {path!r} is of type {given}; expected a real floating-point "
                "array. Pass the parameters that model.split(obj) gave."
            )
            raise ParamsError(msg)


def _traced(tree: PyTree) -> bool:
    return any(is_tracer(leaf) for leaf in jax.tree.leaves(tree))


def _abstract_rows(x: Inputs, size: int) -> Inputs:
    """Shapes of the inputs if there were `size` samples."""
    rows = np.zeros(size, dtype=np.int32)
    return jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[rows], tree), x)


def _evaluate_shapes(model: Model, params: Params, state: State, x: Inputs) -> dict[str, Any]:
    outputs = jax.eval_shape(model.apply, params, state, x)
    if not isinstance(outputs, Mapping) or not outputs:
        msg = (
            f"{model.name} returned a {type(outputs).__name__}; expected a non-empty dict "
            '{"head": array}. Build the model with as_model, which names the outputs.'
        )
        raise ModelError(msg)
    for name, output in outputs.items():
        if not isinstance(output, jax.ShapeDtypeStruct):
            msg = (
                f"head {name!r} of {model.name} is a {type(output).__name__}; expected one array "
                "(N, *out). Pick the arrays with as_model(..., heads={...})."
            )
            raise ModelError(msg)
    return dict(outputs)


def _shapes_on_probe(
    model: Model, params: Params, state: State, probe: Probe
) -> dict[str, jax.ShapeDtypeStruct]:
    try:
        return _evaluate_shapes(model, params, state, probe.x)
    except NtkStatsError:
        raise
    except Exception as error:
        msg = (
            f"{model.name} fails on the probe {probe.name!r} of shape {describe_shapes(probe.x)}: "
            f"{type(error).__name__}: {error} Expected inputs the model accepts, with its own "
            "parameters. Give the probe the shape and dtype of the training inputs."
        )
        raise ProbeError(msg) from error


def _check_output(name: str, output: jax.ShapeDtypeStruct, n: int) -> None:
    if output.shape[:1] != (n,):
        msg = (
            f"head {name!r} has shape {output.shape} on {n} samples; expected a leading sample "
            f"axis ({n}, ...). Return one output for each sample, or give per_sample=True if the "
            "model takes one sample at a time."
        )
        raise ModelError(msg)
    if 0 in output.shape:
        msg = f"head {name!r} has shape {output.shape}; expected at least one output component."
        raise ModelError(msg)
    if jnp.issubdtype(output.dtype, jnp.complexfloating):
        msg = (
            f"head {name!r} is complex ({output.dtype}); the NTK here is defined for real "
            "outputs. Return jnp.stack([z.real, z.imag], -1)."
        )
        raise ComplexOutputError(msg)
    if not jnp.issubdtype(output.dtype, jnp.floating):
        msg = (
            f"head {name!r} has dtype {output.dtype}; expected a floating-point output, since "
            "others have no derivative. Return logits or values, or leave this output out with "
            "heads=."
        )
        raise ModelError(msg)


def _check_one_sample(
    model: Model,
    params: Params,
    state: State,
    probe: Probe,
    names: list[str],
    outputs: dict[str, jax.ShapeDtypeStruct],
) -> None:
    """Compare with another batch size: kernels take samples one at a time."""
    size = 1 if probe.n > 1 else 2
    x = _abstract_rows(probe.x, size)
    try:
        others = _evaluate_shapes(model, params, state, x)
    except Exception as error:
        _check_interaction(model, params, state, probe, names, rows=probe.n)
        msg = (
            f"{model.name} works on {probe.n} samples and fails on {size}: "
            f"{type(error).__name__}: {error} Expected a model for any number of samples. If it "
            "only makes sense on the whole probe, declare coupled=True."
        )
        raise ModelError(msg) from error
    for name in names:
        expected = (size, *outputs[name].shape[1:])
        if name not in others or others[name].shape != expected:
            given = others[name].shape if name in others else "missing"
            _check_interaction(model, params, state, probe, names, rows=probe.n)
            msg = (
                f"head {name!r} has shape {outputs[name].shape} on {probe.n} samples and {given} "
                f"on {size}; expected {expected}. The first axis must be that of the samples: "
                "look for a squeeze without axis=, a fixed batch size, or an output that does "
                "not depend on the inputs."
            )
            raise ModelError(msg)


def _check_interaction(
    model: Model,
    params: Params,
    state: State,
    probe: Probe,
    names: list[str],
    *,
    rows: int | None = None,
) -> None:
    if probe.n == 1 or _traced((params, state)):
        return
    found = find_interaction(model.apply, params, state, probe.x, probe.n, names, rows=rows)
    if found is None:
        return
    msg = (
        f"samples of {model.name} interact: the output of head {found.head!r} for sample "
        f"{found.sample} changed by {found.change:.2g} (of {found.scale:.2g}) when other samples "
        "changed. Expected every output to depend on its own input only. Switch the model to "
        "evaluation mode (call_kwargs=), or declare the interaction with "
        "as_model(..., coupled=True)."
    )
    raise CoupledSamplesError(msg)
