"""The door: one function that holds a collector to its contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ntkstats.collectors import Collector
from ntkstats.errors import CollectorError
from ntkstats.models import Probe, as_model
from ntkstats.testing import _clauses as clauses
from ntkstats.testing._declaration import check_declaration
from ntkstats.testing._system import System, small_network, small_probe

CLAUSES: dict[str, Callable[[clauses.Case], None]] = {
    "pure": clauses.check_pure,
    "finite": clauses.check_finite,
    "scan": clauses.check_scan,
    "vmap": clauses.check_vmap,
    "precision": clauses.check_precision,
    "order": clauses.check_order,
    "heads": clauses.check_heads,
    "neighbours": clauses.check_neighbours,
}


def check_collector(
    collector: Collector,
    *,
    model: Any = None,
    obj: Any = None,
    probes: Probe | Sequence[Probe] | None = None,
    extras: Mapping[str, Any] | None = None,
    undefined_at_first: Iterable[str] = (),
    symmetric: bool | Iterable[str] = False,
    beside: Collector | Sequence[Collector] = (),
) -> None:
    """Check that a collector keeps the contract by which it runs anywhere.

    Its declarations are compared with what `measure` does (fields, dims, labels, carry,
    requirements), and it is run for three records in a Python loop, in ``lax.scan``, over an
    ensemble, in float32 and in float64. That takes some seconds, most of them compilation.

    Parameters
    ----------
    collector
        The collector, as it would be given to a recorder.
    model, obj, probes
        What to check it on, as for [`bind`][ntkstats.collectors.bind]; all three, or none for a
        two-layer network with 5 inputs and 3 outputs on 8 samples with class labels.
    extras
        An example of what the loop has to pass, ``{name: array}``.
    undefined_at_first
        Fields that may be NaN at the first record, because they compare with an earlier one.
    symmetric
        Fields that must not depend on the order of the probe's samples; True stands for all. Not
        for estimates that draw one sign for each sample.
    beside
        Collectors that it will be used with: no field may collide, no number may change.

    Raises
    ------
    ContractError
        A clause does not hold; the message names the collector, the clause, what was found and
        what to change. It is an AssertionError too, so that tests report it as a failure.
    CollectorError
        The arguments of this function make no sense.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats.collectors import Collector, Label
    >>> from ntkstats.errors import ContractError
    >>> from ntkstats.testing import check_collector
    >>> def measure(moment, carry):
    ...     return carry, {"largest_bias": jnp.max(moment.snapshot.params["out"]["b"])}
    >>> def labels(binding, head):
    ...     return {"bias": Label("largest bias")}
    >>> try:
    ...     check_collector(Collector("largest_bias", measure, labels, uses_head=False))
    ... except ContractError as error:
    ...     print(error)
    Collector 'largest_bias' breaks 'fields': labels declares ['bias'] and measure returns \
['largest_bias']; expected one label for each entry
    """
    if not isinstance(collector, Collector):
        message = (
            f"check_collector was given {type(collector).__name__}, expected a Collector. Call the "
            "function that makes it: check_collector(mine())"
        )
        raise CollectorError(message)
    surroundings = _system(collector, model, obj, probes, extras)
    case = clauses.Case(
        surroundings,
        frozenset(undefined_at_first),
        symmetric if isinstance(symmetric, bool) else frozenset(symmetric),
        (beside,) if isinstance(beside, Collector) else tuple(beside),
    )
    check_declaration(case.system)
    for check in CLAUSES.values():
        check(case)


def _system(
    collector: Collector,
    model: Any,
    obj: Any,
    probes: Probe | Sequence[Probe] | None,
    extras: Mapping[str, Any] | None,
) -> System:
    given = [argument is not None for argument in (model, obj, probes)]
    if any(given) and not all(given):
        message = (
            "model, obj and probes belong together; expected all three, or none of them for the "
            "small network that comes with this function"
        )
        raise CollectorError(message)
    if probes is None:
        model, obj = small_network()
        named = () if collector.probe is None else (small_probe(collector.probe),)
        probes = (small_probe(), *named)
    adapted = as_model(model)
    listed = (probes,) if isinstance(probes, Probe) else tuple(probes)
    examples = {probe.extra: probe.example for probe in listed if probe.extra is not None}
    # Ensembles are stacked below; parameters and state can be, modules of a framework cannot.
    return System(
        collector,
        replace(adapted, split=lambda pair: pair),
        adapted.split(obj),
        listed,
        examples | dict(extras or {}),
    )
