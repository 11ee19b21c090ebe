"""The questions, and the trainings that answer them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from studies.collective_variables._tiers import TIERS, Tier
from studies.collective_variables._trial import Trial


@dataclass(frozen=True)
class Question:
    """A grid of trainings of one system, or of several systems as they are.

    Attributes
    ----------
    name
        Of the question.
    asks
        In words.
    systems
        What is trained.
    base
        Settings that all trainings share.
    own
        Further settings by system.
    grid
        Settings that differ, with their values; every combination is trained.
    """

    name: str
    asks: str
    systems: tuple[str, ...]
    base: Mapping[str, Any]
    grid: Mapping[str, tuple[Any, ...]]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def trials(self, seed: int) -> Iterator[tuple[dict[str, Any], Trial]]:
        """Every training with its place in the grid (``system`` included, if there are several)."""
        for system in self.systems:
            for values in itertools.product(*self.grid.values()):
                place = dict(zip(self.grid, values, strict=True))
                settings = {"seed": seed, **self.base, **self.own.get(system, {}), **place}
                where = {"system": system, **place} if len(self.systems) > 1 else place
                yield where, Trial(system, tuple(settings.items()))


def _size(tier: Tier) -> Question:
    return Question(
        "size",
        "Does the entropy fall in small networks and rise in deep ones?",
        ("dense",),
        tier.learning,
        {"width": tier.widths, "depth": tier.depths},
    )


def _tanh(tier: Tier) -> Question:
    return Question(
        "tanh",
        "Is it the same with tanh in place of ReLU?",
        ("dense",),
        {**tier.learning, "activation": "tanh"},
        {"width": tier.widths, "depth": tier.depths},
    )


def _data(tier: Tier) -> Question:
    return Question(
        "data",
        "How do entropy and trace go with the number of training samples?",
        ("dense",),
        {**tier.learning, "depth": tier.middle_depth},
        {"width": tier.two_widths, "samples": tier.samples},
    )


def _batch(tier: Tier) -> Question:
    return Question(
        "batch",
        "Does the batch size switch the compression phase on or off?",
        ("dense",),
        {**tier.learning, "depth": tier.middle_depth},
        {"width": tier.two_widths, "batch_size": tier.batches},
    )


def _redundancy(tier: Tier) -> Question:
    return Question(
        "redundancy",
        "Does redundancy of the data, built in on purpose, bring compression about?",
        ("dense",),
        {**tier.learning, "depth": tier.middle_depth, "width": tier.two_widths[0]},
        {"samples": tier.samples[:2], "copies": tier.copies, "jitter": (0.0, 0.5)},
    )


def _activation(tier: Tier) -> Question:
    return Question(
        "activation",
        "How do activation and initialisation matter, also where networks fail to train?",
        ("dense",),
        {**tier.learning, "depth": tier.middle_depth, "width": tier.two_widths[-1]},
        {"activation": tier.activations, "init": tier.inits},
    )


def _corruption(tier: Tier) -> Question:
    return Question(
        "corruption",
        "Does corrupting the data late hurt more when the trace is large?",
        ("dense",),
        {**tier.learning, "depth": tier.middle_depth, "corruption": 0.3},
        # wrong from the end on: never, the control
        {"width": tier.widths[1:], "corrupt_at": (*tier.corrupt_at, tier.steps)},
    )


def _probe(tier: Tier) -> Question:
    return Question(
        "probe",
        "How large must the subsample be on which the kernel is taken?",
        ("dense",),
        {**tier.learning, "depth": tier.middle_depth, "records": tier.few_records},
        {"width": tier.two_widths, "probe": tier.probes},
    )


def _starts(tier: Tier) -> Question:
    return Question(
        "starts",
        "Do starting entropy and trace tell the final test loss, at fixed size?",
        ("dense",),
        {**tier.learning, "seeds": tier.many_seeds, "records": tier.few_records},
        {"width": tier.two_widths, "depth": tier.depths[:2]},
    )


def _regression(tier: Tier) -> Question:
    return Question(
        "regression",
        "Is it the same in regression (fuel consumption)?",
        ("dense",),
        {**tier.learning, "dataset": "auto_mpg", "batch_size": 32, "probe": tier.table_probe},
        {"width": tier.widths, "depth": tier.depths},
    )


def _systems(tier: Tier) -> Question:
    return Question(
        "systems",
        "Is it the same in convolutional, residual, generative, graph, language and RL networks?",
        tuple(tier.systems),
        {},
        {},
        tier.systems,
    )


QUESTIONS = MappingProxyType(
    {
        make.__name__[1:]: make
        for make in (
            _size,
            _tanh,
            _data,
            _batch,
            _redundancy,
            _activation,
            _corruption,
            _probe,
            _starts,
            _regression,
            _systems,
        )
    }
)
"""What makes each question from a tier."""


def question(name: str, tier: str) -> Question:
    """A question at the sizes of a tier."""
    return QUESTIONS[name](TIERS[tier])
