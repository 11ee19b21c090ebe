"""What can be set, and the landscapes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ntkstats import landscape
from studies._errors import StudyError
from studies._settings import setting
from studies.ml_landscapes._problems import iris_problem, xor_problem

Data = Literal["xor", "iris"]


@dataclass(frozen=True)
class Config:
    """Settings of the landscapes."""

    xor_hidden: tuple[int, ...] = setting((1, 2, 3), "hidden units of the XOR networks")
    xor_l2: tuple[float, ...] = setting((1e-2, 1e-3, 1e-4), "weight decays of the XOR networks")
    iris_hidden: int = setting(3, "hidden units of the iris networks")
    iris_l2: tuple[float, ...] = setting(
        (1e-2, 1e-3, 3e-4, 1e-4), "weight decays of the iris networks"
    )
    seeds: int = setting(5, "splits of the flowers; the replicates of every interval")
    starts: int = setting(2000, "quenches of each landscape")
    saddle_starts: int = setting(1024, "saddle searches of each round and index")
    more: int = setting(4, "times as many in XOR landscapes of more than two hidden units")
    rounds: int = setting(3, "rounds of searches for transition states")
    top: int = setting(4, "highest index of saddles that is searched in XOR landscapes")

    def __post_init__(self) -> None:
        for name in ("iris_hidden", "seeds", "starts", "rounds", "top", "saddle_starts", "more"):
            if getattr(self, name) < 1:
                msg = f"{name}={getattr(self, name)}; expected a whole number of at least 1."
                raise StudyError(msg)
        for name in ("xor_hidden", "xor_l2", "iris_l2"):
            values = getattr(self, name)
            if not values or min(values) <= 0 or len(set(values)) < len(values):
                given = ",".join(f"{value:g}" for value in values)
                msg = f"{name}={given!r}; expected positive numbers, each once."
                raise StudyError(msg)


@dataclass(frozen=True)
class Explored:
    """One landscape; everything that decides it."""

    data: Data
    hidden: int
    l2: float
    seed: int
    starts: int
    saddle_starts: int
    rounds: int
    top: int

    @property
    def label(self) -> str:
        """Data, hidden units, weight decay, and which split."""
        split = f", split {self.seed}" if self.data == "iris" else ""
        return f"{self.data}, {self.hidden} hidden, l2 {self.l2:g}{split}"

    def problem(self) -> landscape.Problem:
        """The loss."""
        if self.data == "xor":
            return xor_problem(self.hidden, self.l2)
        return iris_problem(self.hidden, self.l2, self.seed)


def tasks(config: Config) -> tuple[Explored, ...]:
    """Every landscape once: XOR has no chance in its data, iris has splits."""
    searches, rounds = config.saddle_starts, config.rounds
    # Their numbers grow with every unit, and what is missing shows in the Morse sum.
    grown = {units: searches * (config.more if units > 2 else 1) for units in config.xor_hidden}
    xor = [
        Explored("xor", units, l2, 0, config.starts, grown[units], rounds, config.top)
        for units in config.xor_hidden
        for l2 in config.xor_l2
    ]
    iris = [
        Explored("iris", config.iris_hidden, l2, seed, config.starts, searches, rounds, 1)
        for l2 in config.iris_l2
        for seed in range(config.seeds)
    ]
    return (*xor, *iris)
