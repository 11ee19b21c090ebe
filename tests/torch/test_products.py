"""Weights of linear layers: the same kernel without rows of the Jacobian."""

import numpy as np
import pytest
import torch
from torch import nn

import ntkstats as nts
from ntkstats import collectors
from ntkstats.models._torch import _factor, _model, _products
from ntkstats.torch import on_probe
from tests.torch import networks
from tests.torch.oracle import dense_jacobian, gram_of, relative


class Reused(nn.Module):
    """One layer called twice, at several positions of a sample."""

    def __init__(self):
        super().__init__()
        self.widen = nn.Linear(32, 64)
        self.inner = nn.Linear(64, 64)
        self.out = nn.Linear(128, 4)

    def forward(self, x):
        x = self.inner(torch.tanh(self.inner(self.widen(x.reshape(-1, 2, 32)))))
        return self.out(torch.tanh(x).flatten(1))


class UsedElsewhere(nn.Module):
    """The first weight is also read outside its layer, the second one only there."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 16)
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        x = torch.tanh(self.first(x)) + self.first.weight.square().mean(1)
        return self.out(torch.tanh(nn.functional.linear(x, self.second.weight)))


class Constant(nn.Module):
    """A layer whose input is the same for every sample, one in lower precision, one unused."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(16))
        self.embed = nn.Linear(16, 16)
        self.low = nn.Linear(64, 16)
        self.unused = nn.Linear(16, 16)
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        with torch.no_grad():
            bias = self.unused(self.token)
        with torch.autocast("cpu", torch.bfloat16):
            low = self.low(x).float()
        return self.out(torch.tanh(low + self.embed(self.token))) + 0 * bias[:4]


class Batched(nn.Module):
    """Samples that interact: the positions of one input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 256)
        self.out = nn.Linear(256, 2)

    def forward(self, x):
        x = torch.tanh(self.layer(x))
        return self.out(x - x.mean(0))


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 4)), {"0", "2"}),
    "reused": (Reused, {"widen", "inner", "out"}),
    "used elsewhere": (UsedElsewhere, {"out"}),
    "constant": (Constant, {"embed", "unused", "out"}),
    "coupled": (Batched, {"layer"}),
}


@pytest.fixture
def taken(monkeypatch):
    """Names of the weights without rows, one set for each time that the Jacobian was computed."""
    seen = []

    def noting(*args):
        found = _products.products_of(*args)
        seen.append({name.removesuffix(".weight") for name in found})
        return found

    monkeypatch.setattr(_factor, "products_of", noting)
    return seen


@pytest.mark.parametrize(("make", "expected"), CASES.values(), ids=CASES)
def test_kernels_against_plain_autograd_in_float64(make, expected, taken):
    module, (x, _) = make(), networks.digits(5)
    coupled = isinstance(module, Batched)
    model, _ = on_probe(nts.as_model(module, coupled=coupled), nts.Probe(x))
    jacobian, _ = dense_jacobian(module, lambda twin: twin(x.double()))
    # What the module itself does in bfloat16 the oracle does in float64.
    tolerance = 1e-2 if isinstance(module, Constant) else 1e-6
    assert relative(gram_of(model, module), jacobian @ jacobian.T) < tolerance
    assert taken == [expected]
    assert all("forward" not in layer.__dict__ for layer in module.modules())


def test_every_layer_and_gradient_is_as_precise_as_float32(taken):
    module, (x, _) = networks.mlp(), networks.digits(6)
    model, _ = on_probe(module, nts.Probe(x))
    _, state = model.split(module)
    assert taken == [{"0", "3"}]
    jacobian, sizes = dense_jacobian(module, lambda twin: twin(x.double()))
    start = 0
    for rows, size in zip(state["probe"]["jacobian"]["output"], sizes.values(), strict=True):
        found, exact = rows.reshape(60, -1).astype(float), jacobian[:, start : start + size]
        start += size
        assert relative(found @ found.T, exact @ exact.T) < 1e-6
        # Gradients along every eigenvector, also those that are nearly lost in rounding.
        _, vectors = np.linalg.eigh(exact @ exact.T)
        lengths = [np.linalg.norm(vectors.T @ j, axis=1) for j in (found, exact)]
        assert np.abs(lengths[0] - lengths[1]).max() < 3e-7 * lengths[1].max()


def test_inputs_of_two_lengths_keep_rows_where_they_must(taken):
    module = nn.Sequential(
        nn.Embedding(11, 32), nn.Linear(32, 32), nn.Tanh(), nn.AdaptiveAvgPool2d((1, 32))
    )
    module.append(nn.Flatten()).append(nn.Linear(32, 4))
    tokens = [torch.randint(0, 11, (4, length)) for length in (2, 3)]
    probes = [nts.Probe(tokens[0]), nts.Probe(tokens[1], name="longer")]
    model, _ = on_probe(module, probes)
    _, state = model.split(module)
    assert taken == [{"5"}]
    jacobian, _ = dense_jacobian(module, lambda twin: torch.cat([twin(some) for some in tokens]))
    blocks = [state[probe.name]["jacobian"]["output"] for probe in probes]
    rows = [
        np.concatenate([side.reshape(-1, side.shape[-1]) for side in pair]).astype(float)
        for pair in zip(*blocks, strict=True)
    ]
    assert relative(sum(row @ row.T for row in rows), jacobian @ jacobian.T) < 1e-6


def test_portions_of_the_kernel_are_put_together():
    a, g = torch.randn(3, 2, 7), torch.randn(6, 2, 5)
    sample = torch.tensor([0, 0, 1, 1, 2, 2])
    rows = torch.einsum("mto,mti->moi", g.double(), a.double()[sample]).flatten(1)
    for most in (1, 500, 10**6):
        assert relative(_products.gram(a, g, sample, most), rows @ rows.T) < 1e-14


def test_roots_of_kernels_without_full_rank():
    thin = torch.randn(50, 3, dtype=torch.float64)
    for rows in (thin, torch.zeros(4, 2, dtype=torch.float64), 1e-9 * thin):
        found = _products.root(rows @ rows.T)
        assert (found @ found.T - rows @ rows.T).abs().max() <= 1e-12 * rows.square().sum()
    assert _products.root(torch.full((3, 3), torch.nan)).isnan().all()


def test_a_diverged_module_is_measured_as_such(tmp_path):
    module, (x, _) = networks.mlp(), networks.digits(4)
    with nts.Recorder(
        tmp_path / "run", module, nts.Probe(x), collectors.ntk_spectrum(), strict=True
    ) as recorder:
        recorder(0, module)
        with torch.no_grad():
            module[0].weight.fill_(torch.nan)
        recorder(1, module)
    assert np.isnan(nts.open_run(tmp_path / "run").trace.values).tolist() == [False, True]


def test_the_jacobian_is_computed_where_a_due_collector_needs_it(tmp_path, monkeypatch):
    computed = []

    def counting(*args):
        computed.append(None)
        return _factor.factors(*args)

    monkeypatch.setattr(_model, "factors", counting)
    x, y = networks.digits()
    module = networks.mlp()
    measure = [
        collectors.ntk_spectrum(at=nts.RecordAt.every(4)),
        collectors.loss("cross_entropy"),
        collectors.param_distance(),
    ]
    recorder = nts.Recorder(
        tmp_path / "run", module, nts.Probe(x[150:157], y[150:157]), measure, strict=True
    )
    counts, losses = [], []

    def before_step(step):
        with torch.no_grad():
            out = module.eval()(x[150:157])
            losses.append(nn.functional.cross_entropy(out, y[150:157]).item())
        recorder(step, module.train())
        counts.append(len(computed))

    networks.train(module, x, y, 9, before_step)
    recorder.close()
    # Once more at the first record, where collectors are bound.
    assert np.diff(counts).tolist() == [0, 0, 0, 1, 0, 0, 0, 1]
    run = nts.open_run(tmp_path / "run")
    assert np.isfinite(run.trace.values).tolist() == [True] * 3
    assert np.allclose(run.loss.values, losses, rtol=1e-5)
    assert (np.diff(run.param_distance.values[:3]) > 0).all()


def test_a_glance_is_not_differentiated():
    import jax

    module, (x, _) = networks.mlp(), networks.digits(4)
    model, probe = on_probe(module, nts.Probe(x))
    whole, glance = model.split(module), model.glance(module)
    assert jax.tree.map(np.shape, whole[0]) == jax.tree.map(np.shape, glance[0])
    outputs = [np.array(model.apply(*known, probe.x)["output"]) for known in (whole, glance)]
    assert relative(outputs[1], outputs[0]) < 1e-6
    with pytest.raises(nts.errors.DerivativeNeededError, match=r"expected Model\.split"):
        jax.grad(lambda p: model.apply(p, glance[1], probe.x)["output"].sum())(glance[0])
