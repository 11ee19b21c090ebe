"""Real small networks of every supported framework, each with a training step and an oracle."""

from __future__ import annotations

from .base import IMAGES, KEY, TOKENS, Case, N, X
from .equinox import EQX_BN, EQX_HEADS, EQX_MLP, EqxActorCritic, EqxBatchNorm
from .linen import (
    LINEN,
    LINEN_BN,
    LINEN_BN_STATE,
    LINEN_HEADS,
    LINEN_TRANSFORMER,
    BatchNormState,
    LinenActorCritic,
    LinenBatchNorm,
    LinenMLP,
    LinenTransformer,
)
from .nnx import NNX_BN, NNX_CONV, NNX_HEADS, NNX_MLP, NnxActorCritic, NnxBatchNorm, NnxConv
from .plain import FILTERED, PLAIN, PLAIN_HEADS, STATEFUL, STAX, Heads, plain_mlp, stax_triple

CASES = (
    PLAIN,
    FILTERED,
    STATEFUL,
    PLAIN_HEADS,
    STAX,
    LINEN,
    LINEN_BN,
    LINEN_BN_STATE,
    LINEN_HEADS,
    LINEN_TRANSFORMER,
    NNX_MLP,
    NNX_BN,
    NNX_CONV,
    NNX_HEADS,
    EQX_MLP,
    EQX_BN,
    EQX_HEADS,
)

__all__ = [
    "CASES",
    "EQX_BN",
    "EQX_HEADS",
    "EQX_MLP",
    "FILTERED",
    "IMAGES",
    "KEY",
    "LINEN",
    "LINEN_BN",
    "LINEN_BN_STATE",
    "LINEN_HEADS",
    "LINEN_TRANSFORMER",
    "NNX_BN",
    "NNX_CONV",
    "NNX_HEADS",
    "NNX_MLP",
    "PLAIN",
    "PLAIN_HEADS",
    "STATEFUL",
    "STAX",
    "TOKENS",
    "BatchNormState",
    "Case",
    "EqxActorCritic",
    "EqxBatchNorm",
    "Heads",
    "LinenActorCritic",
    "LinenBatchNorm",
    "LinenMLP",
    "LinenTransformer",
    "N",
    "NnxActorCritic",
    "NnxBatchNorm",
    "NnxConv",
    "X",
    "plain_mlp",
    "stax_triple",
]
