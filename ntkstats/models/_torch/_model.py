"""A torch module as a `Model`: its outputs and Jacobian on the probes are the state.

Everything that is measured depends on a network only through its outputs, its Jacobian and its
parameters at one moment. Torch computes these at every split; JAX sees a function that has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
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
from ntkstats.models._torch._checks import checked_rows
from ntkstats.models._torch._factor import Side, factors
from ntkstats.models._torch._module import evaluation, torch_module_of, unwrapped
from ntkstats.models._torch._network import Network, Pick, picker
from ntkstats.models._torch._rows import WAYS, Rows, saved_bytes
from ntkstats.models._torch._weights import check_unwritten, slashed, weights_of
from ntkstats.typing import Array, Inputs, Outputs, Params, State

REST = ".rest"
"""Ends the names of coordinates on which no output depends; names of parameters have no dot."""


class _Options(NamedTuple):
    pick: Pick
    kwargs: Mapping[str, Any]
    params_filter: ParamsFilter
    coupled: bool
    split: Callable[[Any], Any] | None


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
        fixed = replace(
            model,
            split=_splitter(options, tuple(probes), wide=wide, budget=budget_bytes),
            apply=_apply,
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


def _splitter(
    options: _Options, probes: tuple[Probe, ...], *, wide: bool, budget: int | None
) -> Callable[[Any], tuple[Params, State]]:
    known: list[tuple[Rows, int]] = []  # how rows are made, found at the first split

    def split(obj: Any) -> tuple[Params, State]:
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
            if not known:
                ways = [checked_rows(network, probe) for probe in probes]
                slowest = max(ways, key=WAYS.index)
                sample = jax.tree.map(
                    lambda leaf: leaf[0], network.samples(network.batch(probes[0].x))
                )
                known.append((slowest, saved_bytes(network, sample)))
            dtype = np.float64 if wide else np.float32
            state = _state(network, probes, *known[0], _budget(network, budget), dtype)
            check_unwritten(module, weights)
            return _params(network, state, dtype), state

    return split


def _state(
    network: Network, probes: Sequence[Probe], rows: Rows, saved: int, budget: int, dtype: type
) -> dict[str, Any]:
    """``{probe: {"outputs": {head: (N, *out)}, "jacobian": {head: [(N, C, k), ...]}}}``."""
    shapes, sides = [], []
    for probe in probes:
        batch = network.batch(probe.x)
        samples = network.samples(batch)
        one = batch if network.coupled else jax.tree.map(lambda leaf: leaf[:1], batch)
        with torch.no_grad():
            heads = network.heads(network.weights.moving, one)
        shapes.append({head: tuple(value.shape[1:]) for head, value in heads.items()})
        n = 1 if network.coupled else probe.n
        width = sum(value.numel() for value in heads.values())
        sides.append(Side(samples, n, width))
    outputs, jacobian = factors(network, rows, sides, budget, saved)
    state, offset = {}, 0
    for probe, side, shape, out in zip(probes, sides, shapes, outputs, strict=True):
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


def _params(
    network: Network, state: Mapping[str, Any], dtype: type
) -> OrderedDict[str, np.ndarray]:
    """The parameters, flat and in the module's order; each in two leaves if its rows were turned.

    The first leaf has as many entries as the Jacobian has coordinates there, the second one the
    rest, so that norms and distances are those of the parameters.
    """
    heads = next(iter(state.values()))["jacobian"]
    widths = [block.shape[-1] for block in next(iter(heads.values()))]
    params: OrderedDict[str, np.ndarray] = OrderedDict()
    for (name, value), width in zip(network.weights.moving.items(), widths, strict=True):
        path, flat = slashed(name), _host(value, dtype).reshape(-1)
        if width == flat.size:
            params[path] = flat
        else:
            # A parameter of the root is its own layer.
            first = path if "/" in path else f"{path}/0"
            rest = path + REST if "/" in path else f"{path}/{REST}"
            params[first], params[rest] = flat[:width], flat[width:]
    return params


def _apply(params: Params, state: State, x: Inputs) -> Outputs:
    """The outputs of the probe's rows, with their derivatives."""
    ((probe, index),) = x.items()
    known = state[probe]
    leaves = [leaf for path, leaf in params.items() if not path.endswith(REST)]
    result = {}
    for head, outputs in known["outputs"].items():
        value = jnp.asarray(outputs)[index]
        flat = value.reshape(value.shape[0], -1)
        for leaf, block in zip(leaves, known["jacobian"][head], strict=True):
            flat = flat + _moved(leaf, jnp.asarray(block)[index])
        result[head] = flat.reshape(value.shape)
    return result


@jax.custom_jvp
def _moved(theta: Array, rows: Array) -> Array:  # noqa: ARG001
    """Zeros ``(n, C)`` whose derivative in ``theta`` are the rows."""
    return jnp.zeros(rows.shape[:-1], rows.dtype)


@_moved.defjvp
def _moved_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    theta, rows = primals
    change = jnp.einsum("nck,k->nc", _to_first_order(rows, theta), tangents[0])
    return _moved(theta, rows), change


@jax.custom_jvp
def _to_first_order(rows: Array, theta: Array) -> Array:  # noqa: ARG001
    return rows


@_to_first_order.defjvp
def _refuse(primals: Any, tangents: Any) -> NoReturn:  # noqa: ARG001
    msg = (
        "a second derivative of a torch module was asked for; expected first ones only, since "
        "JAX knows its outputs and its Jacobian and nothing else. Measure curvature in torch and "
        "pass it to the recorder by keyword."
    )
    raise ModelError(msg)


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
