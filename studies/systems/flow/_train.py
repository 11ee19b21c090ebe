"""Train a flow on a target, and record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import ntkstats as nts
from ntkstats.training import Task
from ntkstats.typing import Array, Params
from studies._settings import setting
from studies.systems._options import Activation, Run, at_least, optimizer, positive
from studies.systems._scores import spectra, transport
from studies.systems._train import Measured, Progress, sampled, train_task
from studies.systems.flow._network import Flow
from studies.systems.flow._targets import TARGETS, draw

_FULL = 2 * np.pi


@dataclass(frozen=True)
class NormalizingFlow(Run):
    """Settings. Two cores: as they are. One GPU: 16 layers, width 128, batch 4096, 20 seeds."""

    target: Literal["mixture", "banana", "ring", "torus"] = setting(
        "torus", "mixture, banana, ring (plane) or torus"
    )
    layers: int = setting(8, "couplings")
    width: int = setting(32, "units of each hidden layer of a coupling")
    depth: int = setting(2, "hidden layers of a coupling")
    bins: int = setting(8, "pieces of a circular spline (torus)")
    activation: Activation = setting("tanh", "nonlinearity")
    init_scale: float = setting(0.1, "factor of the last weights of a coupling; 0: the identity")
    batch_size: int = setting(256, "samples an update")
    draws: int = setting(2048, "samples for loss, effective sample size and log Z")
    seeds: int = setting(3, "seeds, trained together as one program")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "layers", "width", "depth", "bins", "batch_size", "init_scale")
        at_least(self, 2, "draws")


def train(config: NormalizingFlow, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds and leave the recorded run at `path`."""
    train_task(
        task(config),
        recorded(config),
        config,
        path,
        about={"system": "flow", "log_z": TARGETS[config.target].log_z},
        progress=progress,
    )


def task(config: NormalizingFlow) -> Task:
    """Minimise the reverse KL divergence, with fresh noise in every update."""
    target, module = TARGETS[config.target], flow(config)

    def init(key: Array) -> Params:
        return module.init(key, jnp.zeros((1, 2)))["params"]

    def objective(params: Params, key: Array) -> Array:
        if target.domain == "torus":
            noise = jax.random.uniform(key, (config.batch_size, 2), maxval=_FULL)
        else:
            noise = jax.random.normal(key, (config.batch_size, 2))
        sample: Any = module.apply({"params": params}, noise)
        x, log_q = sample
        return (log_q + target.action(x)).mean()

    return sampled(init, objective, optimizer(config))


def recorded(config: NormalizingFlow) -> Measured:
    """Both kernels on points and noise that never change, and what samples are worth."""
    target, module = TARGETS[config.target], flow(config)
    rng = np.random.default_rng([config.seed, 5])

    def noise(n: int) -> np.ndarray:
        if target.domain == "torus":
            return rng.uniform(0, _FULL, (n, 2)).astype(np.float32)
        return rng.normal(size=(n, 2)).astype(np.float32)

    def apply(params: Params, inputs: Any) -> dict[str, Array]:
        variables = {"params": params}
        sample: Any = module.apply(variables, inputs["noise"])
        x, log_q = sample
        log_density = module.apply(variables, inputs["points"], method="log_density")
        return {
            "log_density": jnp.asarray(log_density),
            "map": x,
            "log_weight": -target.action(x) - log_q,
        }

    points = draw(target, config.probe, seed=config.seed)
    fixed = nts.Probe({"points": points, "noise": noise(config.probe)}, name="fixed")
    # the points are not looked at there, but the model wants some
    many = np.zeros((config.draws, 2), np.float32)
    samples = nts.Probe({"points": many, "noise": noise(config.draws)}, name="samples")
    return Measured(
        nts.as_model(apply, name="Flow"),
        (fixed, samples),
        (
            *spectra(config.outputs, ("log_density", "map")),
            transport(target.log_z, head="log_weight", probe="samples"),
        ),
    )


def flow(config: NormalizingFlow) -> Flow:
    """The network of a config."""
    return Flow(
        TARGETS[config.target].domain,
        config.layers,
        config.width,
        config.depth,
        config.bins,
        config.activation,
        config.init_scale,
    )
