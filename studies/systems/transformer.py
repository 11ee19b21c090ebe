"""Transformers on real text: a character language model, and a tagger of program text.

Blocks as in Vaswani et al. (2017), normalised first (Xiong et al., 2020). The language model sees
what came before and predicts the next character; the tagger sees the whole window and says of
each character what it belongs to. The kernel is that of the logits of all positions, summed over
positions and classes; where these are many it is estimated from random signs, with an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flax import linen as nn

import ntkstats as nts
from ntkstats.collectors import Collector
from ntkstats.typing import Array
from studies._errors import StudyError
from studies._settings import setting
from studies.datasets import Text, manual, source_code
from studies.systems._layers import ACTIVATIONS, initialiser
from studies.systems._options import Activation, Init, Learning, at_least, positive
from studies.systems._scores import share_correct
from studies.systems._supervised import Problem, cross_entropy, fit, of_module
from studies.systems._train import Progress


@dataclass(frozen=True)
class Transformer(Learning):
    """Settings. Two cores: width 32, 2 layers, 2 seeds. One GPU: width 256, 6 layers, 128 wide."""

    task: Literal["language", "tagging"] = setting("language", "language or tagging")
    window: int = setting(32, "characters of a sample")
    width: int = setting(32, "features of a character inside")
    heads: int = setting(4, "attention heads")
    layers: int = setting(2, "blocks")
    test: int = setting(256, "held-out samples on which loss and accuracy are taken")
    probe: int = setting(32, "samples on which the NTK is taken")
    seeds: int = setting(2, "seeds, trained together as one program")
    learning_rate: float = setting(3e-3, "step size of the optimizer")
    activation: Activation = setting("gelu", "nonlinearity")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "width", "heads", "layers", "test")
        at_least(self, 2, "window")
        if self.width % self.heads:
            msg = f"width={self.width} cannot be shared by heads={self.heads}; choose a multiple."
            raise StudyError(msg)


class Decoder(nn.Module):
    """Attention and dense blocks over characters, with learnt positions."""

    alphabet: int
    n_out: int
    width: int
    heads: int
    layers: int
    causal: bool
    activation: Activation = "gelu"
    init_weights: Init = "lecun"
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Logits ``(N, T, n_out)`` of characters ``(N, T)``."""
        weights = initialiser(self.init_weights, self.init_scale)
        activate = ACTIVATIONS[self.activation]
        length = tokens.shape[1]
        places = self.param("places", nn.initializers.normal(0.1), (length, self.width))
        h = nn.Embed(self.alphabet, self.width)(tokens) + places
        mask = nn.make_causal_mask(tokens) if self.causal else None
        for _ in range(self.layers):
            seen = nn.LayerNorm()(h)
            attention = nn.MultiHeadDotProductAttention(self.heads, kernel_init=weights)
            h = h + attention(seen, mask=mask)
            inner = activate(nn.Dense(4 * self.width, kernel_init=weights)(nn.LayerNorm()(h)))
            h = h + nn.Dense(self.width, kernel_init=weights)(inner)
        return nn.Dense(self.n_out, kernel_init=weights)(nn.LayerNorm()(h))


def text(config: Transformer) -> Text:
    """What is read, with as many held-out samples as the settings ask for."""
    make = manual if config.task == "language" else source_code
    data = make(seed=config.seed, window=config.window)
    if config.test > len(data.y_test):
        msg = f"test={config.test}; {data.name} has {len(data.y_test)} held-out samples."
        raise StudyError(msg)
    return data._replace(x_test=data.x_test[: config.test], y_test=data.y_test[: config.test])


def problem(config: Transformer) -> Problem:
    """The network and its data."""
    data = text(config)
    module = Decoder(
        len(data.alphabet),
        len(data.kinds) or len(data.alphabet),
        config.width,
        config.heads,
        config.layers,
        config.task == "language",
        config.activation,
        config.init,
        config.init_scale,
    )
    init, apply = of_module(module, data.x_train)
    model = nts.as_model(module)
    return Problem("transformer", data, init, apply, model, cross_entropy, also=_also)


def train(config: Transformer, path: Path, *, progress: Progress = None) -> None:
    """Train from ``config.seeds`` seeds and leave the recorded run at `path`.

    Raises
    ------
    StudyError
        The settings do not fit the data.
    """
    fit(problem(config), config, path, progress=progress)


def _also(probe: str | None) -> Sequence[Collector]:
    return (share_correct(probe=probe),)
