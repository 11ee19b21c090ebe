"""Rows of the Jacobian through `torch.func`, or through autograd where that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import jax
import torch
from torch import Tensor
from torch.func import vjp, vmap

from ntkstats.models._torch._network import Moving, Network
from ntkstats.typing import PyTree

Rows: TypeAlias = Callable[[Network, Moving, PyTree, int, int], tuple[Tensor, Moving]]
"""``rows(network, moving, samples, start, stop)``: outputs ``(n, C)`` of n samples, and the
derivatives ``(n, stop - start, *shape)`` of some of them in the parameters of ``moving``."""


def together(
    network: Network, moving: Moving, samples: PyTree, start: int, stop: int
) -> tuple[Tensor, Moving]:
    """`vmap` over samples of `vmap` over outputs of `vjp`."""
    return vmap(lambda sample: _rows_of_one(network, moving, sample, start, stop))(samples)


def by_sample(
    network: Network, moving: Moving, samples: PyTree, start: int, stop: int
) -> tuple[Tensor, Moving]:
    """One sample after the other, `vmap` over its outputs: the forward pass is an ordinary one."""
    each = [
        _rows_of_one(network, moving, sample, start, stop) for sample in _one_after_another(samples)
    ]
    rows = {name: torch.stack([row[name] for _, row in each]) for name in moving}
    return torch.stack([out for out, _ in each]), rows


def _rows_of_one(
    network: Network, moving: Moving, sample: PyTree, start: int, stop: int
) -> tuple[Tensor, Moving]:
    out, pull, *_ = vjp(lambda values: network.flat(values, sample), moving)
    unit = torch.eye(out.numel(), dtype=out.dtype, device=out.device)[start:stop]
    return out, vmap(pull)(unit)[0]


def _one_after_another(samples: PyTree) -> Iterator[PyTree]:
    for i in range(jax.tree.leaves(samples)[0].shape[0]):
        yield jax.tree.map(lambda leaf, i=i: leaf[i], samples)


def one_by_one(
    network: Network, moving: Moving, samples: PyTree, start: int, stop: int
) -> tuple[Tensor, Moving]:
    """One backward pass for each output of each sample: works for whatever autograd does."""
    outs: list[Tensor] = []
    rows: list[Moving] = []
    for sample in _one_after_another(samples):
        leaves = {name: value.detach().requires_grad_() for name, value in moving.items()}
        out = network.flat(leaves, sample)
        outs.append(out.detach())
        rows += [_gradient(out, c, leaves, keep=c + 1 < stop) for c in range(start, stop)]
    stacked = {
        name: torch.stack([row[name] for row in rows]).reshape(
            len(outs), stop - start, *value.shape
        )
        for name, value in moving.items()
    }
    return torch.stack(outs), stacked


def _gradient(out: Tensor, c: int, leaves: Moving, *, keep: bool) -> Moving:
    if not out.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(
        out[c],
        list(leaves.values()),
        retain_graph=keep,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(leaves, found, strict=True))


def saved_bytes(network: Network, sample: PyTree) -> int:
    """Bytes that the forward pass of one sample leaves behind for the backward pass."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    leaves = {n: v.detach().requires_grad_() for n, v in network.weights.moving.items()}
    own = {value.untyped_storage().data_ptr() for value in leaves.values()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network.flat(leaves, sample)
    return sum(size for pointer, size in seen.items() if pointer not in own)


WAYS: tuple[Rows, ...] = (together, by_sample, one_by_one)
"""The fastest first; the last one always works."""
