"""The Jacobian by plain autograd in float64, one backward pass for each output."""

import copy

import torch


def dense_jacobian(module, outputs_of):
    """``(N * C, P)`` of a float64 copy in evaluation mode, and ``{name: columns}``."""
    twin = copy.deepcopy(module).double().eval()
    leaves = {name: p for name, p in twin.named_parameters() if p.requires_grad}
    out = outputs_of(twin).reshape(-1)
    options = {"retain_graph": True, "materialize_grads": True, "allow_unused": True}
    rows = [torch.autograd.grad(value, list(leaves.values()), **options) for value in out]
    matrix = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    return matrix.numpy(), {name: p.numel() for name, p in leaves.items()}


def relative(found, expected):
    """Largest difference over the largest entry."""
    expected = torch.as_tensor(expected)
    return float((torch.as_tensor(found) - expected).abs().max() / expected.abs().max())


def gram_of(model, module):
    """The full kernel from what `split` gives, without the engine."""
    _, state = model.split(module)
    ((_, known),) = state.items()
    ((_, blocks),) = known["jacobian"].items()
    rows = [block.reshape(-1, block.shape[-1]).astype("float64") for block in blocks]
    return sum(row @ row.T for row in rows)
