"""How large everything is, for a quick look, for two cores, and for one GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Systems = Mapping[str, Mapping[str, Any]]

_ON_CORES: Systems = {
    "convolutional": {"seeds": 5},
    "resnet": {"width": 8, "blocks": (1, 1), "seeds": 5},
    "autoencoder": {"seeds": 5},
    "vae": {"seeds": 5},
    "graph": {"seeds": 10},
    "transformer": {"seeds": 4},
    "flow": {"seeds": 5},
    "reinforcement": {"seeds": 10},
}

_ON_GPU: Systems = {
    "convolutional": {"dataset": "mnist5k", "channels": (32, 64), "seeds": 10},
    "resnet": {"dataset": "mnist5k", "width": 64, "seeds": 5},
    "autoencoder": {"dataset": "mnist5k", "widths": (512, 256), "seeds": 10},
    "vae": {"dataset": "mnist5k", "widths": (512, 256), "seeds": 10},
    "graph": {"width": 256, "layers": 4, "seeds": 20},
    "transformer": {"width": 256, "layers": 6, "window": 128, "seeds": 5},
    "flow": {"layers": 16, "width": 128, "batch_size": 4096, "seeds": 20},
    "reinforcement": {"envs": 64, "width": 256, "seeds": 50},
}


@dataclass(frozen=True)
class Tier:
    """Sizes.

    Attributes
    ----------
    dataset, steps, batch_size, probe, records, seeds
        Of every dense network that learns images.
    widths, depths
        Of the grids over sizes; ``two_widths`` and ``middle_depth`` where something else varies.
    samples, batches, copies, activations, inits, corrupt_at, probes
        Values of what varies otherwise.
    many_seeds
        Where correlations over seeds are asked for; with ``few_records``.
    table_probe
        Samples of a probe of a table.
    systems
        Systems of other kinds, each with what is set in it.
    """

    dataset: str
    steps: int
    batch_size: int
    probe: int
    records: int
    seeds: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    two_widths: tuple[int, ...]
    middle_depth: int
    samples: tuple[int, ...]
    batches: tuple[int, ...]
    copies: tuple[int, ...]
    activations: tuple[str, ...]
    inits: tuple[str, ...]
    corrupt_at: tuple[int, ...]
    probes: tuple[int, ...]
    many_seeds: int
    few_records: int
    table_probe: int
    systems: Systems

    @property
    def learning(self) -> dict[str, Any]:
        """Settings of every dense network that learns images."""
        names = ("dataset", "steps", "batch_size", "probe", "records", "seeds")
        return {name: getattr(self, name) for name in names}


_CORES = Tier(
    dataset="mnist5k",
    steps=938,  # 30 epochs of 4000 images
    batch_size=128,
    probe=256,
    records=30,
    seeds=10,
    widths=(4, 16, 64, 256),
    depths=(1, 3, 6),
    two_widths=(16, 128),
    middle_depth=3,
    samples=(256, 1000, 4000),
    batches=(16, 64, 256, 1024),
    copies=(1, 4, 16),
    activations=("relu", "tanh", "sigmoid", "sine", "linear"),
    inits=("lecun", "normal", "constant"),
    corrupt_at=(30, 100, 300, 600),
    probes=(16, 32, 64, 128, 256, 512),
    many_seeds=40,
    few_records=6,
    table_probe=128,
    systems=_ON_CORES,
)

TIERS = MappingProxyType(
    {
        "smoke": Tier(
            dataset="digits",
            steps=40,
            batch_size=32,
            probe=24,
            records=6,
            seeds=4,
            widths=(4, 16),
            depths=(1, 2),
            two_widths=(8, 16),
            middle_depth=2,
            samples=(64, 256),
            batches=(16, 64),
            copies=(1, 4),
            activations=("relu", "tanh"),
            inits=("lecun", "constant"),
            corrupt_at=(10, 20),
            probes=(8, 24),
            many_seeds=6,
            few_records=3,
            table_probe=24,
            systems={
                name: {"steps": 20, "seeds": 2, "probe": 12} for name in ("convolutional", "graph")
            },
        ),
        "cores": _CORES,
        "gpu": Tier(
            **{
                **vars(_CORES),
                "seeds": 20,
                "widths": (4, 8, 16, 32, 64, 128, 256, 512, 1000),
                "depths": (1, 2, 3, 6, 10),
                "many_seeds": 200,
                "systems": _ON_GPU,
            }
        ),
    }
)
"""Sizes by name."""
