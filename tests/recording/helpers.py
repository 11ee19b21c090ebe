"""A tiny linear model whose recorded numbers are known by hand, and collectors of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats.collectors import Collector, Label
from ntkstats.models import Probe, as_model
from ntkstats.recording import RecordAt, Recorder

MODEL = as_model(lambda params, x: x @ params["w"], name="linear")
PROBE = Probe(np.eye(3, dtype=np.float32), np.array([0, 1, 0]))
EVERY = RecordAt.every(1)


def state(step: int, members: int | None = None) -> dict[str, jax.Array]:
    """Parameters after `step` updates: every weight is 1 + step (plus 100 a member)."""
    one = jnp.full((3, 2), 1.0 + step)
    if members is None:
        return {"w": one}
    return {"w": one + 100.0 * jnp.arange(members)[:, None, None]}


def weight_mean(
    name: str = "weight_mean",
    *,
    at: Any = None,
    extras: tuple[str, ...] = (),
    on_trace: Callable[[], None] = lambda: None,
) -> Collector:
    """The mean weight, 1 + step, plus every extra it asks for; `on_trace` sees each tracing."""

    def measure(moment: Any, carry: Any) -> Any:
        on_trace()
        value = moment.snapshot.params["w"].mean()
        for extra in extras:
            value = value + jnp.asarray(moment.snapshot.extras[extra], value.dtype)
        return carry, {name: value}

    def labels(binding: Any, head: str) -> dict[str, Label]:
        return {name: Label("mean weight", "weight", attrs={"law": "mean"})}

    return Collector(name, measure, labels, uses_head=False, at=at, extras=extras)


def weights(name: str = "weights", *, at: Any = None, repeat: int = 1) -> Collector:
    """All weights, `repeat` times over."""

    def measure(moment: Any, carry: Any) -> Any:
        return carry, {name: jnp.tile(moment.snapshot.params["w"], (repeat, 1))}

    def labels(binding: Any, head: str) -> dict[str, Label]:
        columns = {"column": ("left", "right")}
        return {name: Label("weights", dims=("row", "column"), coords=columns)}

    return Collector(name, measure, labels, uses_head=False, at=at)


def train(recorder: Recorder, start: int, stop: int, **extras: Any) -> None:
    """Call the recorder before each of the updates start, ..., stop - 1."""
    for step in range(start, stop):
        recorder(step, state(step), **{k: v(step) if callable(v) else v for k, v in extras.items()})


def recorder_at(path: Any, what: Any = None, **options: Any) -> Recorder:
    """A recorder of every step."""
    return Recorder(path, MODEL, PROBE, what or weight_mean(), **{"at": EVERY, **options})
