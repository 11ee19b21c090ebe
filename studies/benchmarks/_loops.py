"""Training loops of every kind that a recorder or a watch is attached to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState

import ntkstats as nts
from ntkstats.attach import Watch
from ntkstats.typing import Array
from studies.benchmarks._systems import System

SPECTRUM = nts.collectors.ntk_spectrum()
EVERY = nts.RecordAt.every(1)
NEVER = nts.RecordAt.steps([10**6])
IDLE_STEPS, BUSY_STEPS = 200, 30
FORMS: dict[str, nts.RecordAt | None] = {"bare": None, "idle": NEVER, "busy": EVERY, "least": None}
LAST = {"idle": 10**6, "busy": BUSY_STEPS - 1}
BATCH, SAMPLES = 64, 100
RATE = 1e-4


class Loop(NamedTuple):
    """A training loop in four forms; each trains on from where it stopped.

    Attributes
    ----------
    bare
        ``bare(steps)``: without anything of ours.
    idle
        With a recorder or watch that is never due.
    busy
        With one that is due at every step; returns when every record is on disk.
    least
        With the eigenvalues of the kernel at every step, and nothing else of ours.
    traces
        How often each form was traced so far.
    """

    bare: Callable[[int], Any]
    idle: Callable[[int], Any]
    busy: Callable[[int], Any]
    least: Callable[[int], Any]
    traces: dict[str, int]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batches(system: System) -> list[tuple[Array, Array]]:
    """Minibatches of the whole data set."""
    starts = range(0, len(system.x) - BATCH + 1, BATCH)
    return [(system.x[i : i + BATCH], system.y[i : i + BATCH]) for i in starts]


def spectrum_of(system: System, params: Any) -> Callable[[Any], Array]:
    """What a record cannot do without: parameters to eigenvalues of the trace kernel, jitted."""
    model, x = nts.as_model(system.apply), system.x[:SAMPLES]
    known, state = model.split(params)
    plan = nts.kernels.plan(model, known, state, x, outputs="trace")
    compiled = jax.jit(lambda p, x: nts.spectrum.eigenvalues(plan.gram(p, state, x).matrix))
    return lambda p: compiled(p, x)


class Host:
    """A Python loop: what it holds, and the step that is jitted."""

    def __init__(
        self,
        name: str,
        obj: Any,
        step: Callable[[Any, Array, Array], Any],
        recorder: nts.Recorder | None,
        data: list[tuple[Array, Array]],
        floor: Callable[[], Any] | None = None,
    ) -> None:
        self.name, self._obj, self._step, self._recorder = name, obj, step, recorder
        self._floor = floor
        self._data, self._count = itertools.cycle(data), itertools.count()

    def __call__(self, steps: int) -> Any:
        """Train for ``steps`` updates and wait for the last one, and for the disk."""
        for i in itertools.islice(self._count, steps):
            if self._recorder is not None:
                self._recorder(i, self._obj)
            if self._floor is not None:  # waited for, as whatever uses its numbers has to
                jax.block_until_ready(self._floor())
            self._obj = self._step(self._obj, *next(self._data))
        if self._recorder is not None:
            self._recorder.flush()
        return jax.tree.leaves(nnx.state(self._obj) if isinstance(self._obj, tuple) else self._obj)


def _host_loop(
    system: System,
    folder: Path,
    model: nts.Model,
    make: Callable[[], Any],
    make_step: Callable[[Callable[[], None]], Callable[[Any, Array, Array], Any]],
) -> Loop:
    traces = dict.fromkeys(FORMS, 0)
    params = system.init(jax.random.key(0))
    eigenvalues = partial(spectrum_of(system, params), params)
    probe, data = nts.Probe(system.x[:SAMPLES]), batches(system)

    def form(name: str) -> Host:
        def traced() -> None:
            traces[name] += 1

        recorder = None
        at = FORMS[name]
        if at is not None:
            recorder = nts.Recorder(folder / name, model, probe, SPECTRUM, at=at)
        floor = eigenvalues if name == "least" else None
        return Host(name, make(), make_step(traced), recorder, data, floor)

    return Loop(form("bare"), form("idle"), form("busy"), form("least"), traces)


class Net(linen.Module):
    """ReLU network for flax linen."""

    widths: tuple[int, ...]

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """Logits."""
        for width in self.widths[:-1]:
            x = linen.relu(linen.Dense(width)(x))
        return linen.Dense(self.widths[-1])(x)


def linen_loop(system: System, widths: tuple[int, ...], folder: Path) -> Loop:
    """A TrainState and a jitted step that donates it."""
    module = Net(widths[1:])

    def make() -> TrainState:
        params = module.init(jax.random.key(0), system.x[:1])["params"]
        return TrainState.create(apply_fn=module.apply, params=params, tx=optax.adam(RATE))

    def make_step(traced: Callable[[], None]) -> Any:
        def step(state: TrainState, x: Array, y: Array) -> TrainState:
            traced()

            def loss(params: Any) -> Array:
                logits: Any = module.apply({"params": params}, x)
                return cross_entropy(logits, y)

            return state.apply_gradients(grads=jax.grad(loss)(state.params))

        return jax.jit(step, donate_argnums=0)

    return _host_loop(system, folder, nts.as_model(module), make, make_step)


def nnx_loop(system: System, widths: tuple[int, ...], folder: Path) -> Loop:
    """A live module and its optimizer."""

    def network() -> nnx.Module:
        rngs = nnx.Rngs(0)
        layers: list[Any] = []
        for a, b in itertools.pairwise(widths):
            layers += [nnx.Linear(a, b, rngs=rngs), nnx.relu]
        return nnx.Sequential(*layers[:-1])

    def make() -> tuple[nnx.Module, nnx.Optimizer]:
        net = network()
        return net, nnx.Optimizer(net, optax.adam(RATE), wrt=nnx.Param)

    def make_step(traced: Callable[[], None]) -> Any:
        @nnx.jit
        def update(net: Any, optimizer: Any, x: Array, y: Array) -> None:
            traced()
            optimizer.update(net, nnx.grad(lambda net: cross_entropy(net(x), y))(net))

        def step(obj: Any, x: Array, y: Array) -> Any:
            call: Any = update
            call(*obj, x, y)
            return obj

        return step

    model = nts.as_model(network(), split=lambda obj: obj[0] if isinstance(obj, tuple) else obj)
    return _host_loop(system, folder, model, make, make_step)


def equinox_loop(system: System, widths: tuple[int, ...], folder: Path) -> Loop:
    """A module and an optimiser state, ``eqx.filter_jit``."""
    tx = optax.adam(RATE)

    def network() -> eqx.nn.MLP:
        key = jax.random.key(0)
        return eqx.nn.MLP(widths[0], widths[-1], widths[1], depth=len(widths) - 2, key=key)

    def make() -> Any:
        net = network()
        return {"net": net, "opt": tx.init(eqx.filter(net, eqx.is_inexact_array))}

    def make_step(traced: Callable[[], None]) -> Any:
        @eqx.filter_jit
        def step(obj: Any, x: Array, y: Array) -> Any:
            traced()
            net = obj["net"]
            grads = eqx.filter_grad(lambda net: cross_entropy(jax.vmap(net)(x), y))(net)
            updates, opt = tx.update(grads, obj["opt"])
            return {"net": eqx.apply_updates(net, updates), "opt": opt}

        return step

    model = nts.as_model(network(), split=lambda obj: obj["net"] if isinstance(obj, dict) else obj)
    return _host_loop(system, folder, model, make, make_step)


def scan_loop(system: System, folder: Path, kind: str, *, seeds: int | None = None) -> Loop:
    """Training in one jit, also vmapped over seeds.

    ``kind`` is "scan" (`Watch.scan`), "gate" (`Watch.measure_if`) or "chain" (`as_optax`).
    """
    model, traces = nts.as_model(system.apply), dict.fromkeys(FORMS, 0)
    params, probe = system.init(jax.random.key(0)), nts.Probe(system.x[:SAMPLES])
    program = nts.collectors.bind(model, params, probe, SPECTRUM)
    data = [jnp.stack(parts) for parts in zip(*batches(system), strict=True)]
    keys = jax.random.split(jax.random.key(0), seeds or 1)

    def form(name: str) -> Callable[[int], Any]:
        def traced() -> None:
            traces[name] += 1

        at = FORMS[name]
        watch = None if at is None else nts.watch(program, model, at, until=LAST[name])
        floor = spectrum_of(system, params) if name == "least" else None
        recorder = None
        if name == "busy":
            recorder = nts.Recorder(folder / name, model, probe, SPECTRUM, members=seeds)
            recorder.bind(jax.vmap(system.init)(keys) if seeds else params)
        done = itertools.count(0, 10 * BUSY_STEPS)
        compiled: dict[int, Any] = {}

        def run(steps: int) -> Any:
            if steps not in compiled:
                train = _training(system, watch, kind, data, steps, traced, floor)
                compiled[steps] = jax.jit(jax.vmap(train) if seeds else train)
            final = jax.block_until_ready(compiled[steps](keys if seeds else keys[0]))
            if recorder is not None and watch is not None:
                records, recorded = watch.results(final)
                recorder.extend(records, recorded + next(done))
            return final

        return run

    return Loop(form("bare"), form("idle"), form("busy"), form("least"), traces)


def _training(
    system: System,
    watch: Watch | None,
    kind: str,
    data: list[Array],
    steps: int,
    traced: Callable[[], None],
    floor: Callable[[Any], Array] | None,
) -> Callable[[Array], Any]:
    tx = optax.adam(RATE)
    if watch is not None and kind == "chain":
        tx = optax.chain(nts.as_optax(watch), tx)

    def step(carry: Any, i: Array) -> Any:
        traced()
        params, opt, watched = carry
        x, y = (part[i % len(part)] for part in data)
        grads = jax.grad(lambda p: cross_entropy(system.apply(p, x), y))(params)
        if watch is not None and kind == "gate":
            watched = watch.measure_if(watched, i, params)
            grads = watch.after(watched, grads)
        spectrum = None if floor is None else floor(params)
        updates, opt = tx.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt, watched), spectrum

    def train(key: Array) -> Any:
        params = system.init(key)
        first = (params, tx.init(params), watch.init() if watch and kind == "gate" else None)
        if watch is None or kind != "scan":
            return jax.lax.scan(step, first, jnp.arange(steps))
        return watch.scan(step, first, jnp.arange(steps), obj_of=lambda carry: carry[0])

    return train
