"""A torch training loop and its floor, for the benchmark of loops; needs torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, vjp, vmap

import ntkstats as nts
from ntkstats.torch import attach
from studies.benchmarks._loops import FORMS, RATE, SPECTRUM, Loop, batches
from studies.benchmarks._systems import System

SAMPLES = 20


def torch_loop(system: System, widths: tuple[int, ...], folder: Path) -> Loop:
    """Adam on a ReLU network; the recorder hangs on the optimiser."""
    data = [
        (torch.tensor(np.array(x)), torch.tensor(np.array(y)).long()) for x, y in batches(system)
    ]
    probe = nts.Probe(np.array(system.x[:SAMPLES]))
    eigenvalues = floor(_network(widths), system)

    def form(name: str) -> Callable[[int], Any]:
        net, rows = _network(widths), itertools.cycle(data)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        recorder = None
        at = FORMS[name]
        if at is not None:
            recorder = nts.Recorder(folder / name, net, probe, SPECTRUM, at=at)
            attach(recorder, net, optimizer)

        def run(steps: int) -> None:
            for x, y in itertools.islice(rows, steps):
                if name == "least":
                    eigenvalues()
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            if recorder is not None:
                recorder.flush()

        return run

    # torch runs as it is written: nothing is ever traced
    return Loop(form("bare"), form("idle"), form("busy"), form("least"), dict.fromkeys(FORMS, 0))


def floor(net: torch.nn.Module, system: System) -> Callable[[], Any]:
    """Eigenvalues of the trace kernel from the Jacobian by ``torch.func``, and nothing else."""
    params = {name: p.detach() for name, p in net.named_parameters()}
    x = torch.tensor(np.array(system.x[:SAMPLES]))

    def rows(sample: torch.Tensor) -> dict[str, torch.Tensor]:
        out, pull = vjp(lambda p: functional_call(net, p, (sample[None],))[0], params)[:2]
        return vmap(pull)(torch.eye(len(out)))[0]

    def eigenvalues() -> torch.Tensor:
        with torch.no_grad():
            jacobian = [leaf.flatten(2).transpose(0, 1) for leaf in vmap(rows)(x).values()]
            layers = torch.stack([(leaf @ leaf.transpose(1, 2)).sum(0) for leaf in jacobian])
            return torch.linalg.eigvalsh(layers.sum(0))

    return eigenvalues


def _network(widths: tuple[int, ...]) -> torch.nn.Module:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
