"""What can be set, and the tasks that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studies._errors import StudyError
from studies._settings import setting

Kind = Literal["mlp", "cnn"]

NETWORKS = ("narrow", "wide", "cnn")


@dataclass(frozen=True)
class Config:
    """Settings of the quickstart."""

    dataset: Literal["mnist5k", "digits"] = setting(
        "mnist5k", "mnist5k (28 x 28) or digits (8 x 8, faster)"
    )
    networks: tuple[str, ...] = setting(NETWORKS, "which of narrow, wide and cnn to train")
    narrow: int = setting(16, "width of the two hidden layers of the narrow MLP")
    wide: int = setting(100, "width of the two hidden layers of the wide MLP")
    channels: tuple[int, ...] = setting((8, 16), "channels of the CNN's convolutions")
    seeds: int = setting(5, "seeds of each network, trained together")
    steps: int = setting(1000, "updates")
    batch_size: int = setting(64, "images an update")
    optimizer: Literal["adam", "sgd"] = setting("adam", "adam or sgd")
    learning_rate: float = setting(1e-3, "step size of the optimizer")
    probe: int = setting(100, "training images on which the NTK is taken")
    records: int = setting(14, "records on the way, spaced logarithmically")
    seed: int = setting(0, "decides split, probe, initialisations and batches")

    def __post_init__(self) -> None:
        unknown = [n for n in self.networks if n not in NETWORKS]
        if unknown or not self.networks or len(set(self.networks)) < len(self.networks):
            given, known = ",".join(self.networks), ", ".join(NETWORKS)
            msg = f"networks={given!r}; expected some of {known}, each once."
            raise StudyError(msg)
        for name in ("narrow", "wide", "seeds", "steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                msg = f"{name}={getattr(self, name)}; expected a positive number."
                raise StudyError(msg)
        if not self.channels or min(self.channels) < 1:
            msg = f"channels={self.channels}; expected positive numbers."
            raise StudyError(msg)
        for name in ("probe", "records"):
            if getattr(self, name) < 2:
                msg = f"{name}={getattr(self, name)}; expected at least 2."
                raise StudyError(msg)


@dataclass(frozen=True)
class Training:
    """One network, all seeds; everything that decides its numbers."""

    label: str
    kind: Kind
    widths: tuple[int, ...]
    dataset: Literal["mnist5k", "digits"]
    seeds: int
    steps: int
    batch_size: int
    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    probe: int
    records: int
    seed: int


def tasks(config: Config) -> tuple[Training, ...]:
    """List one training a network."""
    shared = {
        name: getattr(config, name)
        for name in (
            "dataset",
            "seeds",
            "steps",
            "batch_size",
            "optimizer",
            "learning_rate",
            "probe",
            "records",
            "seed",
        )
    }
    networks: dict[str, tuple[str, Kind, tuple[int, ...]]] = {
        "narrow": (f"narrow MLP (width {config.narrow})", "mlp", (config.narrow, config.narrow)),
        "wide": (f"wide MLP (width {config.wide})", "mlp", (config.wide, config.wide)),
        "cnn": (f"CNN (channels {'-'.join(map(str, config.channels))})", "cnn", config.channels),
    }
    return tuple(Training(*networks[name], **shared) for name in config.networks)
