"""Bind collectors to a model and probes: one pure Program in which nothing is computed twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from ntkstats._compat import x64
from ntkstats._lanes import tree_index
from ntkstats.collectors._binding import Binding
from ntkstats.collectors._build import Builder
from ntkstats.collectors._collector import Collector
from ntkstats.collectors._instances import Instance, expand, needed
from ntkstats.collectors._live import check_comparisons, check_live
from ntkstats.collectors._types import Program, Snapshot
from ntkstats.errors import (
    CollectorError,
    DuplicateNameError,
    MissingExtraError,
)
from ntkstats.kernels._precision import check_float64, check_precision, to_float64
from ntkstats.models import Model, Probe, check_model
from ntkstats.typing import Array, PyTree


def bind(
    model: Model,
    obj: Any,
    probes: Probe | Sequence[Probe],
    collectors: Collector | Sequence[Collector],
    *,
    key: Array | None = None,
    members: int | None = None,
    precision: str | None = None,
    budget_bytes: int | None = None,
    extras: Mapping[str, Any] | None = None,
) -> Program:
    """Bind collectors to a model and to probes.

    All checks that need numbers run here, once, on the host: the model on every probe, heads,
    targets, losses, kernel plans. The returned program is pure.

    Parameters
    ----------
    model
        From `as_model`.
    obj
        What the loop holds (parameters, TrainState, module); with `members`, its leaves carry a
        leading member axis.
    probes
        One probe or several with different names; the first is the default and its fields carry
        no suffix.
    collectors
        From [`ntkstats.collectors`][ntkstats.collectors].
    key
        PRNG key for the sign vectors of probe kernels and for collectors that draw; default
        ``jax.random.key(0)``.
    members
        Size of the ensemble; the program then works on all members at once and its records carry
        a leading member axis.
    precision
        None or ``"float32"``; ``"float64"`` for a program that `run_on_host` traces under x64.
    budget_bytes
        Bound on every kernel's transients plus result, over all members together.
    extras
        Example of what the loop passes along; checked against what collectors and live probes
        need.

    Returns
    -------
    Program

    Raises
    ------
    CollectorError, DuplicateNameError, MissingExtraError, MissingTargetsError, HeadError,
    ProbeError, ModelError, ParamsError, BudgetError, PrecisionError

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntkstats as nts
    >>> model = nts.as_model(lambda params, x: x @ params)
    >>> params, probe = jnp.ones((3, 2)), nts.Probe(jnp.eye(3))
    >>> program = nts.collectors.bind(model, params, probe, nts.collectors.ntk_spectrum())
    >>> carry = program.init(jax.random.key(0))
    >>> snapshot = nts.collectors.Snapshot(0, *model.split(params), {})
    >>> carry, record = program.update(carry, snapshot)
    >>> float(record["trace"])
    6.0
    """
    precision = check_precision(precision)
    probes = (probes,) if isinstance(probes, Probe) else tuple(probes)
    collectors = (collectors,) if isinstance(collectors, Collector) else tuple(collectors)
    _check_arguments(probes, collectors, members)
    key = jax.random.key(0) if key is None else key
    if precision == "float64":
        with x64():
            return _bind(
                model, obj, probes, collectors, key, members, precision, budget_bytes, extras
            )
    return _bind(model, obj, probes, collectors, key, members, precision, budget_bytes, extras)


def _bind(
    model: Model,
    obj: Any,
    probes: tuple[Probe, ...],
    collectors: tuple[Collector, ...],
    key: Array,
    members: int | None,
    precision: str,
    budget_bytes: int | None,
    extras: Mapping[str, Any] | None,
) -> Program:
    params, state = model.split(obj)
    if precision == "float64":
        params, state = to_float64(params), to_float64(state)
    everyone = (params, state)
    if members is not None:
        _check_members(params, members)
        params, state = tree_index(params, 0), tree_index(state, 0)
    bindings = {}
    for i, probe in enumerate(probes):
        used = _in_precision(probe, precision)
        for head in _heads_wanted(collectors, probe.name, default=i == 0):
            check_model(model, params, state, used, head=head)
        heads = jax.eval_shape(model.apply, params, state, used.x)
        bindings[probe.name] = Binding(
            model,
            used,
            params,
            state,
            heads,
            jax.random.fold_in(key, i),
            budget_bytes,
            members or 1,
        )
    instances = expand(collectors, bindings)
    if precision == "float64":
        for instance in instances:
            b = bindings[instance.probe]
            check_float64(model, params, state, b.probe.x, instance.head)
    _check_extras(instances, extras)
    check_comparisons(instances, bindings)
    measured = {instance.probe for instance in instances}
    check_live((b.probe for n, b in bindings.items() if n in measured), extras, members)
    prepared = {
        (name, quantity): quantity.prepare(binding)
        for name, binding in bindings.items()
        for quantity in needed(instances, name)
    }
    example = Snapshot(0, *everyone, dict(extras or {}))
    build = Builder(model, bindings, instances, prepared, members, precision, example)
    return build.whole


def _in_precision(probe: Probe, precision: str) -> Probe:
    """The probe with floating arrays in the program's precision."""
    if precision != "float64":
        return probe
    return replace(
        probe,
        x=to_float64(probe.x),
        y=None if probe.y is None else to_float64(probe.y),
        weight=None if probe.weight is None else to_float64(probe.weight),
    )


def _check_arguments(
    probes: tuple[Probe, ...], collectors: tuple[Collector, ...], members: int | None
) -> None:
    if not probes or not all(isinstance(p, Probe) for p in probes):
        message = f"probes={probes!r}, expected a Probe or a non-empty sequence of them."
        raise CollectorError(message)
    if not collectors or not all(isinstance(c, Collector) for c in collectors):
        kinds = [type(c).__name__ for c in collectors]
        message = (
            f"collectors of types {kinds}, expected at least one Collector. Call the factory: "
            "nts.collectors.ntk_spectrum(), with parentheses."
        )
        raise CollectorError(message)
    names = [p.name for p in probes]
    if len(set(names)) < len(names):
        message = f"Probes named {names}: give each its own name, Probe(x, name='test')."
        raise DuplicateNameError(message)
    if members is not None and (not isinstance(members, int) or members < 1):
        message = f"members={members!r}, expected a positive integer or None."
        raise CollectorError(message)


def _check_members(params: PyTree, members: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf.ndim == 0 or leaf.shape[0] != members:
            message = (
                f"members={members}, but parameter {jax.tree_util.keystr(path)} has shape "
                f"{leaf.shape}; expected a leading axis of {members}. Pass the stacked ensemble."
            )
            raise CollectorError(message)


def _heads_wanted(
    collectors: tuple[Collector, ...], probe: str, *, default: bool
) -> tuple[str | None, ...]:
    """Heads to be checked on a probe; a head that nobody measures may be whatever it likes."""
    here = [
        c for c in collectors if c.uses_head and (c.probe == probe or (c.probe is None and default))
    ]
    named = tuple(dict.fromkeys(c.head for c in here))
    return named if named and None not in named else (None,)


def _check_extras(instances: tuple[Instance, ...], extras: Mapping[str, Any] | None) -> None:
    given = set(extras or {})
    for instance in instances:
        missing = [name for name in instance.collector.extras if name not in given]
        if missing:
            message = (
                f"Collector {instance.collector.name!r} needs {missing} and the loop passed "
                f"{sorted(given) or 'nothing'}. Pass it by keyword: "
                f"recorder(step, state, {missing[0]}=...)."
            )
            raise MissingExtraError(message)
