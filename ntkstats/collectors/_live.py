"""Probes whose inputs come with every record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from ntkstats.collectors._binding import Binding
from ntkstats.collectors._collector import Collector
from ntkstats.collectors._instances import Instance
from ntkstats.errors import CollectorError, MissingExtraError, ProbeError
from ntkstats.models import Probe
from ntkstats.typing import PyTree


def extras_needed(
    collectors: Iterable[Collector], probes: Sequence[Probe]
) -> dict[str, tuple[str, ...]]:
    """``{collector: extras}`` that it asks for by itself or through a live probe."""
    sources = {probe.name: probe.extra for probe in reversed(probes)}
    default = probes[0].name if probes else ""

    def of(collector: Collector) -> tuple[str, ...]:
        live = sources.get(collector.probe or default)
        return tuple(dict.fromkeys(filter(None, (*collector.extras, live))))

    return {collector.name: of(collector) for collector in collectors}


def check_comparisons(instances: Iterable[Instance], bindings: Mapping[str, Binding]) -> None:
    """Refuse collectors that compare records through time where the inputs change.

    Raises
    ------
    CollectorError
        Naming the collector and the probe.
    """
    for instance in instances:
        probe = bindings[instance.probe].probe
        if instance.collector.fixed_probe and probe.extra is not None:
            message = (
                f"Collector {instance.collector.name!r} compares records through time and was put "
                f"on probe {probe.name!r}, whose inputs come with every record ({probe.extra!r}); "
                "expected fixed inputs, since a change of the inputs would pass for a change of "
                "the network. Give it probe= the name of a fixed Probe(x)."
            )
            raise CollectorError(message)


def check_live(
    probes: Iterable[Probe], extras: Mapping[str, Any] | None, members: int | None
) -> None:
    """Check that each live probe gets a batch like its example; shapes only, also under a trace.

    Raises
    ------
    MissingExtraError
        The loop did not pass the extra.
    ProbeError
        Structure, shapes or dtypes are not those of the example.
    """
    for probe in probes:
        if probe.extra is None:
            continue
        if probe.extra not in (extras or {}):
            message = (
                f"Probe {probe.name!r} takes its inputs from {probe.extra!r} and the loop passed "
                f"{sorted(extras or {}) or 'nothing'}. Pass it by keyword: "
                f"recorder(step, state, {probe.extra}=...)."
            )
            raise MissingExtraError(message)
        _check_like(probe, (extras or {})[probe.extra], members)


def live_arrays(probe: Probe, value: Any) -> tuple[PyTree, PyTree]:
    """Inputs and targets out of the extra, in the dtypes of the example."""

    def cast(leaf: Any, like: Any) -> Any:
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return leaf
        return jnp.asarray(leaf, like.dtype)

    arrays = jax.tree.map(cast, value, probe.example)
    return (arrays, None) if probe.y is None else arrays


def _check_like(probe: Probe, value: Any, members: int | None) -> None:
    tree: Any  # JAX does not type its tree definitions
    expected, tree = tree_flatten_with_path(probe.example)
    given, other = tree_flatten_with_path(value)
    ensemble = "" if members is None else f" behind a leading axis of {members} members"
    whose = f"Probe {probe.name!r} takes its inputs from {probe.extra!r}, which"
    advice = "Pass batches of one fixed shape, or build the probe from an example like them."
    if tree != other:
        pair = "" if probe.y is None else " (a pair: inputs, targets)"
        message = (
            f"{whose} is a pytree {other}; expected {tree}{pair}, as in the example of the probe. "
            f"{advice}"
        )
        raise ProbeError(message)
    lead = () if members is None else (members,)
    for (path, like), (_, leaf) in zip(expected, given, strict=True):
        shape, dtype = np.shape(leaf), _dtype(leaf)
        if shape != (*lead, *like.shape) or dtype != _dtype(like):
            message = (
                f"{whose}{keystr(path)} is {shape} {dtype}; expected {tuple(like.shape)} "
                f"{_dtype(like)}{ensemble}, as in the example of the probe. {advice}"
            )
            raise ProbeError(message)


_NARROW = {"float64": "float32", "complex128": "complex64", "int64": "int32", "uint64": "uint32"}


def _dtype(leaf: Any) -> str:
    """The dtype as JAX has it in 32-bit mode, whatever the mode: the program casts anyway."""
    name = str(leaf.dtype) if hasattr(leaf, "dtype") else str(np.result_type(leaf))
    return _NARROW.get(name, name)
