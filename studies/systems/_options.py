"""Settings that systems have in common, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import optax

from studies._errors import StudyError
from studies._settings import setting

Optimizer = Literal["adam", "sgd", "momentum"]
Activation = Literal["relu", "tanh", "gelu", "elu", "softplus", "sigmoid", "sine", "linear"]
Init = Literal["lecun", "he", "glorot", "normal", "constant", "zeros"]
Outputs = Literal["auto", "trace", "sum", "probe"]


@dataclass(frozen=True)
class Run:
    """Settings of every system."""

    steps: int = setting(1000, "updates")
    seeds: int = setting(5, "seeds, trained together as one program")
    probe: int = setting(100, "samples on which the NTK is taken")
    records: int = setting(14, "records on the way, spaced logarithmically")
    optimizer: Optimizer = setting("adam", "adam, sgd, or momentum (0.9)")
    learning_rate: float = setting(1e-3, "step size of the optimizer")
    outputs: Outputs = setting("auto", "kernel of the outputs: auto, trace, sum or probe")
    seed: int = setting(0, "decides data, probe, initialisations and batches")

    @property
    def label(self) -> str:
        """Name of the task for people."""
        return type(self).__name__

    def __post_init__(self) -> None:
        positive(self, "steps", "seeds", "learning_rate")
        at_least(self, 2, "probe", "records")
        check_choices(self)


@dataclass(frozen=True)
class Learning(Run):
    """Settings of every system that learns from a data set."""

    batch_size: int = setting(64, "samples an update")
    samples: int = setting(0, "training samples that are used; 0 for all")
    copies: int = setting(1, "how often each training sample is there (redundancy)")
    jitter: float = setting(0.0, "deviation of the noise on the inputs of copies")
    corruption: float = setting(
        0.0, "share of the training targets that are replaced by wrong ones"
    )
    corrupt_at: int = setting(0, "update from which on the wrong targets are learnt")
    activation: Activation = setting("relu", "nonlinearity")
    init: Init = setting("lecun", "initial weights; normal, constant and zeros may fail to train")
    init_scale: float = setting(1.0, "factor of the initial weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "batch_size", "copies")
        at_least(self, 0, "samples", "jitter", "corrupt_at", "init_scale")
        if not 0 <= self.corruption <= 1:
            msg = f"corruption={self.corruption}; expected a share from 0 to 1."
            raise StudyError(msg)


def optimizer(config: Run) -> optax.GradientTransformation:
    """The optimiser that a config asks for."""
    if config.optimizer == "adam":
        return optax.adam(config.learning_rate)
    return optax.sgd(config.learning_rate, 0.9 if config.optimizer == "momentum" else None)


def positive(config: object, *names: str) -> None:
    """Refuse settings that are not above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            msg = f"{name}={getattr(config, name)}; expected a positive number."
            raise StudyError(msg)


def at_least(config: object, least: int, *names: str) -> None:
    """Refuse settings that are too small."""
    for name in names:
        if not getattr(config, name) >= least:
            msg = f"{name}={getattr(config, name)}; expected at least {least}."
            raise StudyError(msg)


def sizes(config: object, *names: str) -> None:
    """Refuse tuples that are empty or hold what is no size."""
    for name in names:
        value = getattr(config, name)
        if not value or min(value) < 1:
            msg = f"{name}={value}; expected positive numbers."
            raise StudyError(msg)


def check_choices(config: object) -> None:
    """Refuse words that are none of those that a field's type lists."""
    for name, kind in get_type_hints(type(config)).items():
        options = get_args(kind)
        if options and all(isinstance(option, str) for option in options):
            value = getattr(config, name)
            if value not in options:
                msg = f"{name}={value!r}; expected one of {', '.join(options)}."
                raise StudyError(msg)
