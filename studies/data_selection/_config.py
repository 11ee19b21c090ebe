"""What can be set, and the pieces of work that follow from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from studies._errors import StudyError
from studies._settings import setting
from studies.data_selection._tiers import TIERS, Tier, case_named
from studies.systems._options import check_choices

QUESTIONS = ("league", "starts", "atoms", "ablations")

TierName = Literal["smoke", "cores", "gpu"]


@dataclass(frozen=True)
class Config:
    """Which questions, at which size."""

    questions: tuple[str, ...] = setting(QUESTIONS, f"some of {', '.join(QUESTIONS)}")
    tier: TierName = setting("cores", "smoke (a minute), cores (two cores), gpu (one GPU)")
    seed: int = setting(0, "decides splits, picks and initialisations")

    def __post_init__(self) -> None:
        check_choices(self)
        unknown = [q for q in self.questions if q not in QUESTIONS]
        if unknown or not self.questions or len(set(self.questions)) < len(self.questions):
            msg = (
                f"questions={','.join(self.questions)!r}; expected some of "
                f"{', '.join(QUESTIONS)}, each once."
            )
            raise StudyError(msg)
        if self.seed < 0:
            msg = f"seed={self.seed}; expected 0 or more."
            raise StudyError(msg)


@dataclass(frozen=True)
class Trial:
    """One question about one data set with one network.

    Attributes
    ----------
    question, dataset, network, tier, seed
        What is asked, and where.
    settings
        ``((name, value), ...)``: the sizes of the tier that the numbers depend on, so that results
        of other sizes are not taken for these.
    """

    question: str
    dataset: str
    network: str
    tier: TierName
    seed: int
    settings: tuple[tuple[str, Any], ...]

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.question}, {self.dataset}, {self.network}"

    @property
    def sizes(self) -> Tier:
        """Of its tier."""
        return TIERS[self.tier]


def tasks(config: Config) -> tuple[Trial, ...]:
    """Every piece of work; those of one data set are neighbours, so that programs are shared."""
    tier = TIERS[config.tier]
    places = {
        "league": [(c.dataset, c.network) for c in tier.cases],
        "starts": [(c.dataset, c.network) for c in tier.cases],
        "ablations": [(name, "dense") for name in tier.ablations.datasets],
        "atoms": [(tier.atoms.dataset, "gaussian_process")],
    }
    return tuple(
        Trial(question, *place, config.tier, config.seed, _settings(tier, question, *place))
        for question in config.questions
        for place in places[question]
    )


def _settings(tier: Tier, question: str, dataset: str, network: str) -> tuple[tuple[str, Any], ...]:
    parts: list[Any] = [tier.picking]
    if question == "atoms":
        parts.append(tier.atoms)
    else:
        parts.append(case_named(tier, dataset, network))
    if question == "ablations":
        parts.append(tier.ablations)
    return tuple(
        (f"{type(part).__name__.lower()}.{name}", value)
        for part in parts
        for name, value in dataclasses.asdict(part).items()
        if name not in _WITHOUT.get(question, ())
    )


_WITHOUT = {
    "league": ("splits", "starts", "start_budgets"),
    "starts": ("repeats", "draws", "budgets"),
    "ablations": ("splits", "starts", "start_budgets"),
}
"""Sizes that a question does not depend on."""
