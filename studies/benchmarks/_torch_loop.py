"""A torch training loop, for the benchmark of loops; imported only where torch is installed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

import ntkstats as nts
from ntkstats.torch import on_probe
from studies.benchmarks._loops import EVERY, NEVER, RATE, SPECTRUM, Loop, batches
from studies.benchmarks._systems import System

SAMPLES = 20  # the rows of a layer are turned by a QR, which grows with the square of their number


def torch_loop(system: System, widths: tuple[int, ...], folder: Path) -> Loop:
    """Adam on a ReLU network."""
    data = [tuple(torch.tensor(np.array(part)) for part in batch) for batch in batches(system)]
    probe = nts.Probe(np.array(system.x[:SAMPLES]))

    def form(name: str, at: nts.RecordAt | None) -> Callable[[int], Any]:
        net = _network(widths)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        rows, count = itertools.cycle(data), itertools.count()
        recorder = None
        if at is not None:
            recorder = nts.Recorder(folder / name, nts.as_model(net), probe, SPECTRUM, at=at)

        def run(steps: int) -> None:
            for i in itertools.islice(count, steps):
                if recorder is not None:
                    recorder(i, net)
                x, y = next(rows)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y.long()).backward()
                optimizer.step()
            if recorder is not None:
                recorder.flush()

        return run

    traces = {"bare": 0, "idle": 0, "busy": 0}  # torch runs as it is written
    net = _network(widths)
    return Loop(
        form("bare", None), form("idle", NEVER), form("busy", EVERY), traces, nts.as_model(net), net
    )


def torch_floor(loop: Loop, system: System) -> Callable[[], Any]:
    """The Jacobian by ``torch.func``, then the kernel and its eigenvalues by JAX."""
    model, probe = on_probe(loop.params, nts.Probe(np.array(system.x[:SAMPLES])))
    params, state = model.split(loop.params)
    plan = nts.kernels.plan(model, params, state, probe, outputs="trace")

    @jax.jit
    def eigenvalues(params: Any, state: Any, x: Any) -> Any:
        return nts.spectrum.eigenvalues(plan.gram(params, state, x).matrix)

    return lambda: eigenvalues(*model.split(loop.params), probe.x)


def _network(widths: tuple[int, ...]) -> torch.nn.Module:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
