"""What can be set, and the trainings that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studies._settings import setting
from studies.collective_variables._questions import QUESTIONS, question
from studies.collective_variables._trial import Trial
from studies.systems._options import check_choices

Name = Literal[
    "size",
    "tanh",
    "data",
    "batch",
    "redundancy",
    "activation",
    "corruption",
    "probe",
    "starts",
    "regression",
    "systems",
]
Tier = Literal["smoke", "cores", "gpu"]


@dataclass(frozen=True)
class Config:
    """One question, at one size."""

    question: Name = setting("size", f"one of {', '.join(QUESTIONS)}")
    tier: Tier = setting("cores", "smoke (a minute), cores (two cores), gpu (one GPU)")
    seed: int = setting(0, "decides data, probes, initialisations and batches")

    def __post_init__(self) -> None:
        check_choices(self)


def tasks(config: Config) -> tuple[Trial, ...]:
    """Every training that the question needs, once."""
    asked = question(config.question, config.tier)
    return tuple(dict.fromkeys(t for _, t in asked.trials(config.seed)))
