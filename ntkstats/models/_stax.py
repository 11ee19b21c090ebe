"""Adapter for neural-tangents stax triples; neural-tangents itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ntkstats.models._adapter import Adapter
from ntkstats.models._plain import plain_adapter


def is_stax_triple(obj: Any) -> bool:
    """Tell whether an object is ``(init_fn, apply_fn, kernel_fn)``."""
    return isinstance(obj, tuple) and len(obj) == 3 and all(callable(entry) for entry in obj)


def stax_adapter(triple: Any, call_kwargs: Mapping[str, Any]) -> Adapter:
    """Adapt the `apply_fn` of a triple; the parameters are those its `init_fn` returned."""
    _, apply_fn, _ = triple
    adapter = plain_adapter(apply_fn, call_kwargs, has_state=False, kind="stax network")
    return adapter._replace(name="stax")
