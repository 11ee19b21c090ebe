"""What a framework has to supply, and how a `Model` is made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ntkstats.errors import ModelError
from ntkstats.models._filter import ParamsFilter, check_filter, describe_filter, merge, partition
from ntkstats.models._heads import Heads, head_picker
from ntkstats.models._model import Model
from ntkstats.models._static import freeze, thaw
from ntkstats.typing import Inputs, Outputs, Params, PyTree


class Adapter(NamedTuple):
    """One framework's part of a `Model`.

    Attributes
    ----------
    unpack
        ``unpack(obj) -> (parameters, rest)``: two pytrees, read only, any kind of leaves. Called
        at every record.
    call
        ``call(parameters, rest, x) -> raw output``: pure, in evaluation mode.
    name, description
        For records and messages.
    per_sample
        True if the framework's models take one sample.
    one_mask
        True if a key draws dropout masks; one mask then serves all samples.
    """

    unpack: Callable[[Any], tuple[PyTree, PyTree]]
    call: Callable[[PyTree, PyTree, Inputs], Any]
    name: str
    description: str
    per_sample: bool = False
    one_mask: bool = False


class ModelState(NamedTuple):
    """The state of every adapted model: what is read and not differentiated.

    Attributes
    ----------
    frozen
        The parameters' tree with None in place of the differentiated leaves.
    rest
        Batch statistics, keys, the static description of the module.
    """

    frozen: PyTree
    rest: PyTree


def build_model(
    adapter: Adapter,
    *,
    heads: Heads = None,
    params_filter: ParamsFilter = None,
    coupled: bool = False,
    per_sample: bool | None = None,
    split: Callable[[Any], Any] | None = None,
    name: str | None = None,
) -> Model:
    """Compose an adapter with the user's choices; see `as_model` for their meaning."""
    check_filter(params_filter)
    one_by_one = adapter.per_sample if per_sample is None else per_sample
    if coupled and (one_by_one or adapter.one_mask):
        reason = "key= draws one mask for samples" if adapter.one_mask else "per_sample=True is for"
        msg = (
            f"coupled=True was given, and {reason} that are computed one at a time; such samples "
            "cannot interact. Drop one of the two; for a batch model of a per-sample framework "
            "give per_sample=False."
        )
        raise ModelError(msg)
    pick = head_picker(heads)

    def split_object(obj: Any) -> tuple[Params, ModelState]:
        tree, rest = adapter.unpack(obj if split is None else split(obj))
        params, frozen = partition(tree, params_filter)
        return params, ModelState(frozen, freeze(rest))

    def apply(params: Params, state: ModelState, x: Inputs) -> Outputs:
        tree, rest = merge(params, state.frozen), thaw(state.rest)

        def run(inputs: Inputs) -> Outputs:
            return pick(adapter.call(tree, rest, inputs))

        if one_by_one:
            return jax.vmap(run)(x)
        if adapter.one_mask:
            return jax.vmap(lambda sample: _alone(run, sample))(x)
        return run(x)

    mode = ", one sample at a time" if one_by_one else ""
    return Model(
        split=split_object,
        apply=apply,
        name=adapter.name if name is None else name,
        coupled=coupled,
        covers=describe_filter(params_filter),
        description=adapter.description + mode,
    )


def _alone(run: Callable[[Inputs], Outputs], sample: Inputs) -> Outputs:
    """Run a batch model on a batch of one, so that a mask has no sample axis to vary along."""
    outputs = run(jax.tree.map(lambda leaf: leaf[None], sample))
    for head, value in outputs.items():
        if value.shape[:1] != (1,):
            msg = (
                f"head {head!r} has shape {value.shape} on a batch of one sample; expected a "
                "leading axis of 1. Give per_sample=True if the model takes one sample."
            )
            raise ModelError(msg)
    return {head: value[0] for head, value in outputs.items()}
