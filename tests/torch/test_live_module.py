"""Recording leaves no trace in the module or the training."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import ntkstats as nts
from ntkstats import collectors
from ntkstats.torch import attach, on_probe
from tests.torch import networks


class Mixed(nn.Module):
    """Dropout, batch norm, a frozen layer, and one part that stays in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.body = networks.CNN()
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(10, 10)
        self.out.bias.requires_grad_(False)

    def forward(self, x):
        return self.out(self.drop(self.body(x)))


def state_of(module):
    return {
        "modes": [m.training for m in module.modules()],
        "wants": [p.requires_grad for p in module.parameters()],
        "numbers": copy.deepcopy(module.state_dict()),
        "versions": [t._version for t in [*module.parameters(), *module.buffers()]],
        "grads": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "attributes": [sorted(m.__dict__) for m in module.modules()],
        "random": torch.get_rng_state(),
        "mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def assert_equal(before, after):
    for key in ("modes", "wants", "versions", "attributes", "mode"):
        assert before[key] == after[key], key
    assert torch.equal(before["random"], after["random"])
    assert all(torch.equal(v, after["numbers"][k]) for k, v in before["numbers"].items())
    for old, new in zip(before["grads"], after["grads"], strict=True):
        assert (old is None and new is None) or torch.equal(old, new)


def test_a_measurement_touches_nothing():
    x, y = networks.digits()
    module = Mixed().train()
    module.body.norm.eval()
    nn.functional.cross_entropy(module(x[:32]), y[:32]).backward()
    model, _ = on_probe(module, nts.Probe(x[:7]))
    before = state_of(module)
    model.split(module)
    assert_equal(before, state_of(module))
    assert [m.training for m in module.body.children()] == [True, False, True]


def test_a_failed_measurement_touches_nothing():
    x, _ = networks.digits()
    module = Mixed().train()
    model, _ = on_probe(module, nts.Probe(x[:7, :5]))
    before = state_of(module)
    with pytest.raises(nts.errors.ModelError, match="fails on the probe"):
        model.split(module)
    assert_equal(before, state_of(module))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_contexts_around_the_call_make_no_difference(context):
    x, _ = networks.digits(4)
    module = networks.mlp()
    model, _ = on_probe(module, nts.Probe(x))
    expected = model.split(module)[1]["probe"]["jacobian"]["output"]
    with context():
        found = model.split(module)[1]["probe"]["jacobian"]["output"]
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_autocast_around_the_call_makes_no_difference():
    x, _ = networks.digits(4)
    module = networks.mlp()
    model, _ = on_probe(module, nts.Probe(x))
    expected = model.split(module)[1]["probe"]["outputs"]["output"]
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(model.split(module)[1]["probe"]["outputs"]["output"], expected)


def test_what_was_measured_does_not_change_with_the_module():
    x, _ = networks.digits(4)
    module = networks.mlp()
    model, _ = on_probe(module, nts.Probe(x))
    params, _ = model.split(module)
    before = {name: leaf.copy() for name, leaf in params.items()}
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    assert all(np.array_equal(params[name], leaf) for name, leaf in before.items())


def test_training_is_bit_for_bit_the_same_with_a_recorder(tmp_path):
    x, y = networks.digits()

    def final(record):
        torch.manual_seed(3)
        module = Mixed()
        recorder = nts.Recorder(
            tmp_path / "run",
            module,
            nts.Probe(x[150:156], y[150:156]),
            collectors.loss("cross_entropy"),
            at=nts.RecordAt.every(1),
            strict=True,
        )
        if not record:
            return networks.train(module, x, y, 6)
        result = networks.train(module, x, y, 6, lambda step: recorder(step, module))
        assert recorder.finish(module).records == 7
        return result

    with_recorder, without = final(True), None
    (tmp_path / "run.sqlite").unlink()
    without = final(False)
    assert all(torch.equal(value, without[name]) for name, value in with_recorder.items())


def test_wrappers_are_taken_off():
    x, _ = networks.digits(5)
    module = networks.mlp()
    model, _ = on_probe(module, nts.Probe(x))
    params, _ = model.split(module)
    for wrapped in (
        nn.DataParallel(module),
        torch.compile(module, backend="eager"),
        (module, "other"),
    ):
        again, _ = model.split(wrapped)
        assert list(again) == list(params)
        assert all(np.array_equal(params[name], again[name]) for name in params)


def test_forwards_that_accelerate_wrapped_are_measured_as_they_were():
    x, _ = networks.digits(5)
    module = networks.mlp()
    model, _ = on_probe(module, nts.Probe(x))
    expected = model.split(module)[1]["probe"]["outputs"]["output"]
    module._original_forward = module.forward
    module.forward = lambda *a: module._original_forward(*a).bfloat16().float()
    wrapped = module.forward
    assert np.array_equal(model.split(module)[1]["probe"]["outputs"]["output"], expected)
    assert module.forward is wrapped


def test_numbers_from_torch_are_stored(tmp_path):
    x, y = networks.digits(60)
    module = networks.mlp()
    losses = []
    with nts.Recorder(
        tmp_path / "run", module, nts.Probe(x[:4]), collectors.param_norm(), strict=True
    ) as recorder:
        for step in range(3):
            loss = nn.functional.cross_entropy(module(x), y)
            losses.append(float(loss.detach()))
            recorder(step, module, train_loss=loss, half=torch.tensor(0.5, dtype=torch.bfloat16))
    run = nts.open_run(tmp_path / "run")
    assert np.allclose(run.train_loss.values, losses)
    assert run.half.values.tolist() == [0.5] * 3
    assert torch.is_tensor(loss)
    assert loss.requires_grad


def norm_of(module):
    return float(sum(p.detach().square().sum() for p in module.parameters()).sqrt())


def test_attach_records_before_each_update_and_goes_away(tmp_path):
    x, y = networks.digits()
    module = networks.mlp()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    recorder = nts.Recorder(
        tmp_path / "run",
        module,
        nts.Probe(x[:4]),
        collectors.param_norm(),
        at=nts.RecordAt.every(2),
        strict=True,
    )
    norms = []
    with attach(recorder, module, optimizer, extras=lambda: {"lr": 0.1}) as attached:
        for _ in range(5):
            norms.append(norm_of(module))
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
    norms.append(norm_of(module))
    assert attached.step == 5
    run = nts.open_run(tmp_path / "run")
    assert run.step.values.tolist() == [0, 2, 4, 5]
    assert np.allclose(run.param_norm.values, np.array(norms)[[0, 2, 4, 5]], rtol=1e-6)
    assert run.lr.values.tolist() == [0.1] * 4
    assert run.attrs["status"] == "finished"
    optimizer.step()
    assert attached.step == 5


def test_attach_marks_an_interrupted_run(tmp_path):
    module, (x, _) = networks.mlp(), networks.digits(4)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    recorder = nts.Recorder(tmp_path / "run", module, nts.Probe(x), collectors.param_norm())

    def loop():
        with attach(recorder, module, optimizer):
            optimizer.step()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert nts.open_run(tmp_path / "run").attrs["status"] == "interrupted"
    with attach(None, module, optimizer) as nobody:
        optimizer.step()
    assert nobody.step == 1


def test_a_run_is_resumed_with_another_module_object(tmp_path):
    x, _ = networks.digits(4)
    for start in (0, 4):
        module = networks.mlp()
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        recorder = nts.Recorder(
            tmp_path / "run",
            module,
            nts.Probe(x),
            collectors.param_norm(),
            at=nts.RecordAt.every(2),
            resume=True,
            strict=True,
        )
        with attach(recorder, module, optimizer, step=start):
            for _ in range(4):
                module(x).square().mean().backward()
                optimizer.step()
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 2, 4, 6, 8]


class TwoNames(nn.Module):
    """One layer under two names, and its weight in a third place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.third = nn.Linear(4, 4, bias=False)
        self.third.weight = self.first.weight
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))))


def test_a_layer_with_two_names_stays_one_and_goes_on_learning(tmp_path):
    torch.manual_seed(0)
    net, x = TwoNames(), torch.randn(6, 4)
    before = {name: id(p) for name, p in net.named_parameters(remove_duplicate=False)}
    kinds = {name: type(p) for name, p in net.named_parameters(remove_duplicate=False)}
    with nts.Recorder(
        tmp_path / "run", net, nts.Probe(x), nts.collectors.ntk_spectrum(), at=nts.RecordAt.every(1)
    ) as recorder:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for step in range(3):
            recorder(step, net)
            old = net.first.weight.detach().clone()
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
            assert not torch.equal(old, net.first.weight)
    named = dict(net.named_parameters(remove_duplicate=False))
    assert {name: id(p) for name, p in named.items()} == before
    assert {name: type(p) for name, p in named.items()} == kinds
    rows = []
    for out in net(x).reshape(-1):
        grads = torch.autograd.grad(out, list(net.parameters()), retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    model, probe = on_probe(net, nts.Probe(x))
    found = nts.empirical_ntk(model, *model.split(net), probe, outputs="trace").matrix
    jacobian = torch.stack(rows).reshape(6, 3, -1)
    expected = torch.einsum("icp,jcp->ij", jacobian, jacobian)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
