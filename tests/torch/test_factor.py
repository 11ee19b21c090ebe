"""The Jacobian in pieces: whatever the budget, the same kernel."""

import doctest

import numpy as np
import pytest

import ntkstats as nts
from ntkstats.models._torch import _factor, _rows
from ntkstats.torch import on_probe
from tests.torch import networks
from tests.torch.oracle import gram_of


def kernel_of(module, x, budget=None):
    model, _ = on_probe(module, nts.Probe(x), budget_bytes=budget)
    return gram_of(model, module)


def test_pieces_fit_and_cover_everything():
    sizes = {"a": 1000, "b": 10, "c": 300, "d": 7}
    share = 8000
    groups = _factor.passes(sizes, m=5, width=4, budget=share * _factor.SHARES)
    for group in groups:
        assert 4 * 5 * sum(p.stop - p.start for p in group) <= share
        assert 4 * sum(sizes[p.name] for p in group) <= share
    covered = {name: [] for name in sizes}
    for piece in (p for group in groups for p in group):
        covered[piece.name] += range(piece.start, piece.stop)
    assert covered == {name: list(range(size)) for name, size in sizes.items()}
    assert len(groups) > 2


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_chunks_cover_every_row_once(most):
    seen = [
        (i, c)
        for first, last, start, stop in _factor.chunks(5, 4, most)
        for i in range(first, last)
        for c in range(start, stop)
    ]
    assert sorted(seen) == [(i, c) for i in range(5) for c in range(4)]


def test_small_budgets_give_the_same_kernel():
    module, (x, _) = networks.mlp(), networks.digits(6)
    expected = kernel_of(module, x)
    passes = []
    for budget in (2**20, 250_000):
        sizes = {n: p.numel() for n, p in module.named_parameters()}
        passes.append(len(_factor.passes(sizes, 60, 4, budget)))
        found = kernel_of(module, x, budget)
        assert np.abs(found - expected).max() < 2e-6 * np.abs(expected).max()
    assert passes[0] < passes[1]


def test_too_small_a_budget_says_what_to_do():
    module, (x, _) = networks.mlp(), networks.digits(6)
    with pytest.raises(nts.errors.BudgetError, match=r"expected at least [\d,]+\. Use fewer samp"):
        kernel_of(module, x, budget=1000)


def test_all_ways_to_a_row_agree():
    from ntkstats.models._torch._module import evaluation
    from ntkstats.models._torch._network import Network, picker
    from ntkstats.models._torch._weights import weights_of

    module, (x, _) = networks.CNN(), networks.digits(3)
    with evaluation(module):
        weights = weights_of(module, None, wide=True)
        network = Network(module, weights, picker(None), {}, coupled=False)
        samples = network.batch(x.numpy())
        found = [way(network, weights.moving, samples, 2, 7) for way in _rows.WAYS]
        assert _rows.saved_bytes(network, samples[0]) > 0
    for outputs, rows in found[1:]:
        assert (outputs - found[0][0]).abs().max() < 1e-12
        for name, value in rows.items():
            assert value.shape == (3, 5, *weights.moving[name].shape)
            assert (value - found[0][1][name]).abs().max() < 1e-12


def test_examples_run():
    flags = doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(_factor, optionflags=flags).failed == 0
    from ntkstats.torch import _attach, _on_probe

    for module in (_attach, _on_probe):
        result = doctest.testmod(module)
        assert result.attempted
        assert result.failed == 0
