"""Adapter for flax linen modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import errors as flax_errors
from flax import linen as nn

from ntkstats.errors import ModelError, ParamsError
from ntkstats.models._adapter import Adapter
from ntkstats.models._evaluation import (
    describe,
    method_of,
    mode_kwargs,
    signature_source,
    switches,
)
from ntkstats.typing import Array, Inputs, PyTree

COLLECTION_ATTRIBUTES = ("batch_stats",)
"""Attributes of a train state that hold the variable collection of the same name."""


def linen_module_of(obj: Any) -> nn.Module | None:
    """Return the module itself, or the module whose `apply` was handed over, or None."""
    if isinstance(obj, nn.Module):
        return obj
    owner = getattr(obj, "__self__", None)
    if isinstance(owner, nn.Module) and getattr(obj, "__name__", "") == "apply":
        return owner
    return None


def linen_adapter(module: nn.Module, call_kwargs: Mapping[str, Any], key: Array | None) -> Adapter:
    """Adapt a linen module; nothing is mutable and the mode keywords mean evaluation."""
    if "mutable" in call_kwargs or (key is not None and "rngs" in call_kwargs):
        msg = (
            f"call_kwargs has {sorted(call_kwargs)}; expected no 'mutable', and 'rngs' only "
            "without key=. A measurement never writes variables; give a key in one place."
        )
        raise ModelError(msg)
    method = call_kwargs.get("method")
    method_of(module, method)  # refuses a method that does not exist
    dropout = key is not None
    module, fields = _with_mode_fields(module, call_kwargs, dropout=dropout)
    taken = signature_source(module, method)
    mode = mode_kwargs(taken, {**call_kwargs, **fields}, dropout=dropout)
    kwargs = {**call_kwargs, **mode}
    if key is not None:
        # make_rng falls back to the stream "params" for streams of other names.
        kwargs["rngs"] = {"dropout": key, "params": jax.random.fold_in(key, 1)}

    def call(params: PyTree, collections: PyTree, x: Inputs) -> Any:
        try:
            return module.apply({"params": params, **collections}, x, mutable=False, **kwargs)
        except (flax_errors.ScopeCollectionNotFound, flax_errors.ScopeVariableNotFoundError) as e:
            raise ModelError(_no_collection(module, collections, e)) from e
        except (flax_errors.ModifyScopeVariableError, flax_errors.InvalidRngError) as e:
            raise ModelError(_training_mode(module, e)) from e
        except flax_errors.ScopeParamNotFoundError as e:
            msg = (
                f"{type(module).__name__} looks for a parameter that was not given: {e} "
                "Pass the variables that this module's init returned."
            )
            raise ParamsError(msg) from e

    name = type(module).__name__
    return Adapter(
        unpack=_unpack,
        call=call,
        name=name,
        description=describe(f"flax linen module {name}", {**call_kwargs, **fields, **mode}),
        one_mask=dropout,
    )


def _with_mode_fields(
    module: nn.Module, given: Mapping[str, Any], *, dropout: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Set the mode where the module keeps it as an attribute of its own."""
    own = {field.name for field in dataclasses.fields(module)}
    fields: dict[str, Any] = {
        name: value
        for name, value in switches(dropout=dropout).items()
        if name in own and name not in given and isinstance(getattr(module, name), bool)
    }
    return (module.clone(**fields) if fields else module), fields


def _unpack(obj: Any) -> tuple[PyTree, PyTree]:
    """Find parameters and collections in variables, bare parameters or a train state."""
    found = obj if isinstance(obj, Mapping) else getattr(obj, "params", None)
    if not isinstance(found, Mapping):
        msg = (
            f"the model was split on a {type(obj).__name__}; expected a TrainState, a variables "
            'dict {"params": ..., "batch_stats": ...} or the bare parameters. Say with split= '
            "how to get one of these from it."
        )
        raise ModelError(msg)
    collections: dict[str, PyTree] = {}
    if isinstance(found.get("params"), Mapping):
        collections = {name: value for name, value in found.items() if name != "params"}
        found = found["params"]
    if found is not obj and not isinstance(obj, Mapping):
        for name in COLLECTION_ATTRIBUTES:
            if getattr(obj, name, None) is not None:
                collections[name] = getattr(obj, name)
        collections |= dict(getattr(obj, "model_state", None) or {})
    return found, collections


def _no_collection(module: nn.Module, collections: Mapping[str, Any], error: Exception) -> str:
    return (
        f"{type(module).__name__} reads variables that the given object does not hold (it holds "
        f"{['params', *collections]}): {error} Pass the whole variables dict, or a TrainState "
        "that carries batch_stats, or say with split= where they are."
    )


def _training_mode(module: nn.Module, error: Exception) -> str:
    return (
        f"{type(module).__name__} is in training mode: it asks for random numbers or writes "
        f"variables ({error}). A measurement runs in evaluation mode. Let the module take train= "
        "or deterministic=, or set its own switch through call_kwargs; for dropout that stays on "
        "pass key= and a module whose dropout switch is not that of its batch norm."
    )
