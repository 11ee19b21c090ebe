"""What a collector is checked on: a small network at three moments of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.collectors import Collector, Program, Snapshot, bind
from ntkstats.errors import ContractError
from ntkstats.models import Model, Probe, as_model
from ntkstats.typing import Array, Inputs, Outputs, Params, PyTree, State

MOMENTS = 3
"""Records that are taken one after the other: the first one, the second, and one more."""

SAMPLES, INPUTS, HIDDEN, CLASSES = 8, 5, 6, 3


@dataclass(frozen=True, eq=False)
class System:
    """A collector and what it is bound to.

    Attributes
    ----------
    collector
        The one to be checked.
    model, obj, probes
        As for `bind`; ``obj`` is one network.
    extras
        What the loop passes along.
    context
        Said in messages after the collector's name.
    """

    collector: Collector
    model: Model
    obj: Any
    probes: tuple[Probe, ...]
    extras: Mapping[str, Any]
    context: str = ""

    def fail(self, clause: str, what: str, *, cause: Exception | None = None) -> NoReturn:
        """Say that a clause does not hold."""
        who = f"Collector {self.collector.name!r}"
        message = f"{who} breaks {clause!r}{self.context}: {what}"
        raise ContractError(message) from cause

    def bind(
        self, collectors: Collector | Sequence[Collector] | None = None, **options: Any
    ) -> Program:
        """The collector as a program; with other options or other collectors on request."""
        chosen = self.collector if collectors is None else collectors
        obj = options.pop("obj", self.obj)
        extras = options.pop("extras", self.extras)
        return bind(self.model, obj, self.probes, chosen, extras=extras, **options)

    def snapshots(self) -> list[Snapshot]:
        """Moments between which every parameter moves a little, each in its own direction."""
        params, state = self.model.split(self.obj)
        tree: Any  # JAX does not type its tree definitions
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        ways = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
        return [
            Snapshot(
                i,
                tree.unflatten([a + 0.1 * i * way for a, way in zip(leaves, ways, strict=True)]),
                state,
                jax.tree.map(jnp.asarray, dict(self.extras)),
            )
            for i in range(MOMENTS)
        ]

    def reordered(self) -> System:
        """The same with the samples of every probe in another order."""
        live = {probe.extra for probe in self.probes}
        extras = {
            name: jax.tree.map(lambda leaf: leaf[::-1], value) if name in live else value
            for name, value in self.extras.items()
        }
        probes = tuple(_reversed(probe) for probe in self.probes)
        return replace(self, probes=probes, extras=extras)

    def with_heads(self, **factors: float) -> System:
        """The same network with those heads, each a multiple of the only one it has."""
        (head,) = self.heads()

        def apply(params: Params, state: State, x: Inputs) -> Outputs:
            out = self.model.apply(params, state, x)[head]
            return {name: factor * out for name, factor in factors.items()}

        return replace(self, model=replace(self.model, apply=apply))

    def heads(self) -> tuple[str, ...]:
        """Names of the heads."""
        params, state = self.model.split(self.obj)
        probe = next((p for p in self.probes if p.name == self.collector.probe), self.probes[0])
        return tuple(jax.eval_shape(self.model.apply, params, state, probe.x))


def run(program: Program, snapshots: Sequence[Snapshot]) -> tuple[PyTree, list[dict[str, Array]]]:
    """Records of a Python loop over the snapshots, and the last carry."""
    carry, records = program.init(jax.random.key(0)), []
    for snapshot in snapshots:
        carry, record = program.jitted(carry, snapshot)
        records.append(record)
    return carry, records


def differing(one: Mapping[str, Any], other: Mapping[str, Any], *, tolerance: float) -> str | None:
    """Which field differs, in words; None if all agree up to rounding.

    NaN equals NaN. The tolerance is relative to the largest entry of a field; what is below 1e-5
    counts as rounding, since distances of a kernel from itself are nothing else.
    """
    if set(one) != set(other):
        return f"the fields are {sorted(one)} and {sorted(other)}"
    for name in one:
        a, b = (wide(record[name]) for record in (one, other))
        if a.shape != b.shape:
            return f"{name!r} has shapes {a.shape} and {b.shape}"
        finite = np.abs(a[np.isfinite(a)])
        scale = max(finite.max(initial=0.0), 1e-5)
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return f"{name!r} is {_short(a)} and {_short(b)}"
    return None


def wide(value: Any) -> np.ndarray:
    """A field on the host in the widest format of its kind."""
    array = np.asarray(value)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def small_network() -> tuple[Model, Any]:
    """A two-layer network and its parameters."""

    def network(params: Any, x: Array) -> Array:
        hidden = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"])
        return hidden @ params["out"]["w"] + params["out"]["b"]

    keys = iter(jax.random.split(jax.random.key(0), 4))

    def layer(n_in: int, n_out: int) -> dict[str, Array]:
        return {
            "w": jax.random.normal(next(keys), (n_in, n_out), jnp.float32) / n_in**0.5,
            "b": jax.random.normal(next(keys), (n_out,), jnp.float32) / 10,
        }

    params = {"hidden": layer(INPUTS, HIDDEN), "out": layer(HIDDEN, CLASSES)}
    return as_model(network, name="small network"), params


def small_probe(name: str = "probe") -> Probe:
    """Fixed inputs with class labels."""
    x = np.sin(1.7 * np.arange(SAMPLES * INPUTS, dtype=np.float32)).reshape(SAMPLES, INPUTS)
    return Probe(x, np.arange(SAMPLES, dtype=np.int32) % CLASSES, name=name)


def _reversed(probe: Probe) -> Probe:
    x, y, weight = jax.tree.map(lambda leaf: leaf[::-1], (probe.x, probe.y, probe.weight))
    return replace(probe, x=x, y=y, weight=weight)


def _short(array: np.ndarray) -> str:
    text = np.array2string(array.ravel()[:4], precision=6)
    return f"{text[:-1]} ...]" if array.size > 4 else (text if array.ndim else text.strip("[]"))
