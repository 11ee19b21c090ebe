"""Networks in training, with our collectors attached: one module for each field's way of doing it.

Each system has a frozen config and a function ``train(config, path, *, progress=None)`` that
trains all seeds together and leaves a recorded run at `path`; `SYSTEMS` lists them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from studies._errors import StudyError
from studies.systems import (
    autoencoder,
    convolutional,
    dense,
    flow,
    graph,
    reinforcement,
    resnet,
    transformer,
)


class System(NamedTuple):
    """One way to train a network.

    Attributes
    ----------
    summary
        What it is, in one line.
    config
        Its frozen dataclass; every field has a default and was made with `setting`.
    train
        ``train(config, path, *, progress=None)``: leaves a recorded run at `path`.
    heads
        Endings of the fields, one for each kernel: ``entropy_actor``. One empty ending means that
        the fields are plain ``entropy`` and ``trace``.
    score
        A field that says how well it learns, and whether it should rise.
    """

    summary: str
    config: type
    train: Callable[..., None]
    heads: tuple[str, ...] = ("",)
    score: tuple[str, bool] = ("loss", False)


SYSTEMS: Mapping[str, System] = MappingProxyType(
    {
        "dense": System("dense network, images or tables", dense.Dense, dense.train),
        "convolutional": System(
            "convolutional network, images", convolutional.Convolutional, convolutional.train
        ),
        "resnet": System("residual network, images", resnet.ResNet, resnet.train),
        "autoencoder": System(
            "autoencoder, images",
            autoencoder.Autoencoder,
            autoencoder.train,
            ("_reconstruction", "_code"),
            ("loss_reconstruction", False),
        ),
        "vae": System(
            "variational autoencoder, images",
            autoencoder.VAE,
            autoencoder.train_vae,
            ("_reconstruction", "_code"),
            ("loss_bound", False),
        ),
        "graph": System("graph network, graphs or nodes", graph.GraphNetwork, graph.train),
        "transformer": System(
            "transformer, text: next character or tags", transformer.Transformer, transformer.train
        ),
        "flow": System(
            "normalizing flow, plane or torus, reverse KL",
            flow.NormalizingFlow,
            flow.train,
            ("_log_density", "_map"),
            ("kl_samples", False),
        ),
        "reinforcement": System(
            "actor and critic, PPO",
            reinforcement.Reinforcement,
            reinforcement.train,
            ("_actor", "_critic"),
            ("episode_return", True),
        ),
    }
)
"""Every system by name."""


def train(name: str, path: Path, **settings: Any) -> None:
    """Train a system by name, with settings by keyword.

    Raises
    ------
    StudyError
        There is no system of that name, or it has no such setting.
    """
    system = system_named(name)
    system.train(_config(name, system, settings), Path(path))


def system_named(name: str) -> System:
    """Look up a system.

    Raises
    ------
    StudyError
        There is none of that name.
    """
    if name not in SYSTEMS:
        msg = f"Unknown system {name!r}; expected one of {', '.join(SYSTEMS)}."
        raise StudyError(msg)
    return SYSTEMS[name]


def _config(name: str, system: System, settings: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(system.config)}
    unknown = [key for key in settings if key not in known]
    if unknown:
        msg = f"{name} has no setting {unknown[0]!r}; expected some of {', '.join(sorted(known))}."
        raise StudyError(msg)
    return system.config(**settings)
