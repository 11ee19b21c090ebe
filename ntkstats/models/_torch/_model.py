"""A torch module as a `Model`: its outputs and Jacobian on the probes are the state.

Everything that is measured depends on a network only through its outputs, its Jacobian and its
parameters at one moment. Torch computes these at every split; JAX sees a function that has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
import torch
from torch import Tensor, nn

from ntkstats._device import host_bytes
from ntkstats.errors import ModelError
from ntkstats.models._evaluation import describe
from ntkstats.models._filter import ParamsFilter, check_filter, describe_filter
from ntkstats.models._heads import Heads
from ntkstats.models._model import Model
from ntkstats.models._probe import Probe
from ntkstats.models._torch._apply import REST, apply
from ntkstats.models._torch._checks import checked_rows
from ntkstats.models._torch._factor import SHARES, factors
from ntkstats.models._torch._module import evaluation, torch_module_of, unwrapped
from ntkstats.models._torch._network import Network, Pick, picker
from ntkstats.models._torch._rows import WAYS, Rows, saved_bytes
from ntkstats.models._torch._sides import Side, chunks
from ntkstats.models._torch._weights import check_same, check_unwritten, slashed, weights_of
from ntkstats.typing import Params, State


class _Options(NamedTuple):
    pick: Pick
    kwargs: Mapping[str, Any]
    params_filter: ParamsFilter
    coupled: bool
    split: Callable[[Any], Any] | None


class _Learnt(NamedTuple):
    """What the first split found out.

    Attributes
    ----------
    way
        How rows of the Jacobian are made.
    saved
        Bytes that one sample leaves behind for its backward pass.
    names
        Parameters that are differentiated.
    shapes
        ``{head: shape of one output}`` for each probe.
    rows
        Samples times outputs of all probes.
    """

    way: Rows
    saved: int
    names: tuple[str, ...]
    shapes: tuple[dict[str, tuple[int, ...]], ...]
    rows: int


def torch_model(
    module: nn.Module,
    call_kwargs: Mapping[str, Any],
    *,
    heads: Heads,
    params_filter: ParamsFilter,
    coupled: bool,
    split: Callable[[Any], Any] | None,
    name: str | None,
) -> Model:
    """Adapt modules of the kind of `module`; see `as_model`.

    The `Model` still has to be told its inputs: ``model.on_probes``, which a recorder calls.
    """
    check_filter(params_filter)
    options = _Options(picker(heads), dict(call_kwargs), params_filter, coupled, split)
    kind = type(unwrapped(module)).__name__

    def on_probes(
        probes: Sequence[Probe], precision: str | None, budget_bytes: int | None
    ) -> tuple[Model, tuple[Probe, ...]]:
        wide = precision == "float64"
        measured = _measurer(options, tuple(probes), wide=wide, budget=budget_bytes)
        fixed = replace(
            model,
            split=measured,
            glance=partial(measured, derivatives=False),
            apply=apply,
            on_probes=None,
        )
        return fixed, tuple(stand_in(probe) for probe in probes)

    def unsettled(*_: Any) -> NoReturn:
        msg = (
            f"the model of the torch module {kind} was used without its probes; its Jacobian is "
            "computed by torch, which has to know the inputs beforehand. Pass the model to a "
            "Recorder, or take model, probe = ntkstats.torch.on_probe(module, probe)."
        )
        raise ModelError(msg)

    model = Model(
        split=unsettled,
        apply=unsettled,
        name=kind if name is None else name,
        coupled=coupled,
        covers=describe_filter(params_filter),
        description=describe(f"torch module {kind}", {**call_kwargs, "training": False}),
        on_probes=on_probes,
    )
    return model


def stand_in(probe: Probe) -> Probe:
    """A probe of indices in place of inputs, under the hash of the inputs."""
    index = {probe.name: np.arange(probe.n, dtype=np.int32)}
    return replace(probe, x=index, _digest=probe.hash)


def _measurer(
    options: _Options, probes: tuple[Probe, ...], *, wide: bool, budget: int | None
) -> Callable[..., tuple[Params, State]]:
    learnt: list[_Learnt] = []  # at the first split

    def measured(obj: Any, *, derivatives: bool = True) -> tuple[Params, State]:
        found = torch_module_of(obj if options.split is None else options.split(obj))
        if found is None:
            msg = (
                f"the model was split on a {type(obj).__name__}; expected the torch module, an "
                "object with .model, or a tuple with exactly one module. Say with split= how to "
                "get the module from it."
            )
            raise ModelError(msg)
        module = unwrapped(found)
        with evaluation(module):
            weights = weights_of(module, options.params_filter, wide=wide)
            network = Network(module, weights, options.pick, options.kwargs, options.coupled)
            if not learnt:
                learnt.append(_learn(network, probes))
            check_same(module, learnt[0].names, weights)
            dtype = np.float64 if wide else np.float32
            whole = _state if derivatives else _outputs
            state = whole(network, probes, learnt[0], _budget(network, budget), dtype)
            check_unwritten(module, weights)
            return _params(network, learnt[0].rows, dtype), state

    return measured


def _learn(network: Network, probes: Sequence[Probe]) -> _Learnt:
    """Check the module, and find out what stays as it is."""
    ways = [checked_rows(network, probe) for probe in probes]
    rows, shapes = 0, []
    for probe in probes:
        batch = network.batch(probe.x)
        one = batch if network.coupled else jax.tree.map(lambda leaf: leaf[:1], batch)
        with torch.no_grad():
            heads = network.heads(network.weights.moving, one)
        shapes.append({head: tuple(value.shape[1:]) for head, value in heads.items()})
        rows += probe.n * sum(int(np.prod(shape, dtype=int)) for shape in shapes[-1].values())
    sample = jax.tree.map(lambda leaf: leaf[0], network.samples(network.batch(probes[0].x)))
    return _Learnt(
        way=max(ways, key=WAYS.index),
        saved=saved_bytes(network, sample),
        names=tuple(network.weights.moving),
        shapes=tuple(shapes),
        rows=rows,
    )


def _outputs(
    network: Network, probes: Sequence[Probe], learnt: _Learnt, budget: int, dtype: type
) -> dict[str, Any]:
    """``{probe: {"outputs": {head: (N, *out)}}}``."""
    most = budget // SHARES // max(1, learnt.saved)
    state = {}
    for probe in probes:
        batch = network.batch(probe.x)
        parts = []
        for first, last, *_ in chunks(probe.n, 1, probe.n if network.coupled else most):
            chunk = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], batch)
            with torch.no_grad():
                parts.append(network.heads(network.weights.moving, chunk))
        outputs = {head: torch.cat([part[head] for part in parts]) for head in parts[0]}
        state[probe.name] = {"outputs": {h: _host(out, dtype) for h, out in outputs.items()}}
    return state


def _state(
    network: Network, probes: Sequence[Probe], learnt: _Learnt, budget: int, dtype: type
) -> dict[str, Any]:
    """``{probe: {"outputs": {head: (N, *out)}, "jacobian": {head: [(N, C, k), ...]}}}``."""
    sides = []
    for probe, shape in zip(probes, learnt.shapes, strict=True):
        samples = network.samples(network.batch(probe.x))
        width = sum(int(np.prod(out, dtype=int)) for out in shape.values())
        coupled = network.coupled
        sides.append(
            Side(samples, 1, probe.n * width) if coupled else Side(samples, probe.n, width)
        )
    outputs, jacobian = factors(network, learnt.way, sides, budget, learnt.saved)
    state, offset = {}, 0
    for probe, side, shape, out in zip(probes, sides, learnt.shapes, outputs, strict=True):
        stop = offset + side.n * side.width
        blocks = [
            _host(j[offset:stop], dtype).reshape(probe.n, -1, j.shape[1]) for j in jacobian.values()
        ]
        flat = _host(out, dtype).reshape(probe.n, -1)
        state[probe.name] = _by_head(flat, blocks, shape)
        offset = stop
    return state


def _by_head(
    flat: np.ndarray, blocks: list[np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    outputs, jacobian, start = {}, {}, 0
    for head, shape in shapes.items():
        stop = start + int(np.prod(shape, dtype=int))
        outputs[head] = flat[:, start:stop].reshape(-1, *shape)
        jacobian[head] = [block[:, start:stop] for block in blocks]
        start = stop
    return {"outputs": outputs, "jacobian": jacobian}


def _params(network: Network, rows: int, dtype: type) -> OrderedDict[str, np.ndarray]:
    """The parameters, flat and in the module's order; each in two leaves if its rows were turned.

    The first leaf has as many entries as the Jacobian has coordinates there, the second one the
    rest, so that norms and distances are those of the parameters.
    """
    params: OrderedDict[str, np.ndarray] = OrderedDict()
    for name, value in network.weights.moving.items():
        path, flat = slashed(name), _host(value, dtype).reshape(-1)
        if flat.size <= rows:
            params[path] = flat
        else:
            # A parameter of the root is its own layer.
            first = path if "/" in path else f"{path}/0"
            rest = path + REST if "/" in path else f"{path}/{REST}"
            params[first], params[rest] = flat[:rows], flat[rows:]
    return params


def _host(tensor: Tensor, dtype: type) -> np.ndarray:
    """A copy on the host: the module goes on writing to its own."""
    return np.array(tensor.detach().cpu().numpy(), dtype)


def _budget(network: Network, given: int | None) -> int:
    """Half of the free memory of the module's device, at most 4 GiB on CPU."""
    if given is not None:
        return given
    if network.device.type == "cuda":
        return int(torch.cuda.mem_get_info(network.device)[0] // 2)
    return int(min(host_bytes() // 2, 4 * 2**30))
